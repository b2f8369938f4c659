// The upload of MF Load Depth. ComfyUI's own takes files that the browser calls images, which EXR and NPY are not.
import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'

const NODE = 'MFLoadDepth'
const BUTTON = 'MF_DEPTH_UPLOAD'
const SUFFIXES = ['.exr', '.npy', '.npz', '.pfm', '.png', '.tif', '.tiff']

const isDepth = (file) => SUFFIXES.some((suffix) => file.name.toLowerCase().endsWith(suffix))

/** Bring a file to ComfyUI's input folder; the name that it has there. */
async function send(file) {
  const body = new FormData()
  body.append('image', file)
  const answer = await api.fetchApi('/upload/image', { method: 'POST', body })
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`)
  return (await answer.json()).name
}

async function upload(node, file) {
  try {
    const name = await send(file)
    const list = node.widgets.find((widget) => widget.name === 'file')
    if (!list.options.values.includes(name)) list.options.values.push(name)
    list.value = name
    list.callback?.(name)
    node.setDirtyCanvas(true, true)
  } catch (error) {
    app.extensionManager.toast.addAlert(`MF Load Depth: ${file.name} was not uploaded: ${error.message}`)
  }
}

function addButton(node, name) {
  const choose = () => {
    const picker = document.createElement('input')
    picker.type = 'file'
    picker.accept = SUFFIXES.join(',')
    picker.onchange = () => upload(node, picker.files[0])
    picker.click()
  }
  const widget = node.addWidget('button', name, '', choose, { serialize: false, socketless: true })
  widget.serialize = false // nor does it count among a workflow's values
  widget.label = 'choose depth file to upload'

  node.onDragOver = (event) => [...event.dataTransfer.items].some((item) => item.kind === 'file')
  node.onDragDrop = async (event) => {
    const file = [...event.dataTransfer.files].find(isDepth)
    if (file) await upload(node, file)
    return Boolean(file)
  }
  return { widget }
}

app.registerExtension({
  name: 'ModalityForcing.UploadDepth',
  getCustomWidgets: () => ({ [BUTTON]: addButton }),
  beforeRegisterNodeDef(_type, definition) {
    if (definition.name !== NODE) return
    const inputs = definition.input.required
    // Without this extension, the upload of images stays.
    delete inputs.file[1].image_upload
    inputs.upload = [BUTTON, {}]
  }
})
