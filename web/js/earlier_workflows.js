// Workflows that were saved before a widget existed keep the behavior that they were saved with, where the widget's
// default is another one.
import { app } from '../../../scripts/app.js'

const BEFORE = { MFSampler: { same_noise: 'never' } }

app.registerExtension({
  name: 'ModalityForcing.EarlierWorkflows',
  beforeRegisterNodeDef(type, { name }) {
    const before = BEFORE[name]
    if (!before) return
    const configured = type.prototype.onConfigure
    type.prototype.onConfigure = function (saved) {
      configured?.apply(this, arguments)
      const values = saved.widgets_values
      if (!Array.isArray(values) || !values.length) return
      this.widgets?.forEach((widget, place) => {
        if (place >= values.length && widget.name in before) widget.value = before[widget.name]
      })
    }
  }
})
