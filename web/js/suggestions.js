// The menu of a link of this pack's nodes that is dropped on the canvas, with Shift or by the setting for releasing links,
// begins with the pack's own nodes. ComfyUI lists nodes in the order in which they were registered, and every latent has
// one type.
import { app } from '../../../scripts/app.js'

const BEFORE = {
  MFSampler: {
    model: ['MFLoadModel', 'MFTilt', 'MFDepthCompletion'],
    latent: ['MFEmptyLatent', 'MFImageToDepthLatent', 'MFDepthToImageLatent', 'MFMergeLatent']
  },
  MFDepthDetokenize: { depth: ['MFSampler', 'MFEncodeDepth', 'MFSplitLatent'] },
  MFDepthToImageLatent: { depth: ['MFEncodeDepth', 'MFSampler'] },
  MFDepthCompletion: { latent: ['MFImageToDepthLatent', 'MFEmptyLatent'], depth: ['MFEncodeDepth'] },
  MFMergeLatent: { rgb: ['VAEEncode', 'MFSampler'], depth: ['MFEncodeDepth', 'MFSampler'] }
}
const AFTER = {
  MFLoadModel: { MODEL: ['MFSampler', 'MFTilt', 'MFDepthCompletion'], VAE: ['VAEDecode', 'MFImageToDepthLatent'] },
  MFEmptyLatent: { latent: ['MFSampler'] },
  MFImageToDepthLatent: { latent: ['MFSampler', 'MFDepthCompletion'] },
  MFDepthToImageLatent: { latent: ['MFSampler'] },
  MFMergeLatent: { latent: ['MFSampler'] },
  MFEncodeDepth: { depth: ['MFDepthToImageLatent', 'MFDepthCompletion', 'MFMergeLatent', 'MFDepthDetokenize'] },
  MFSampler: {
    rgb: ['VAEDecode', 'MFMergeLatent'],
    depth: ['MFDepthDetokenize', 'MFDepthToImageLatent', 'MFMergeLatent'],
    joint: ['MFSampler', 'MFSplitLatent', 'MFLatentFromBatch']
  },
  MFSplitLatent: { rgb: ['VAEDecode'], depth: ['MFDepthDetokenize'] },
  MFDepthDetokenize: { geometry: ['MFToPointCloud', 'MFRenderView', 'MFSaveDepth', 'MFRestoreSize'] }
}

let undo = () => {}

/** Let a type's list begin with `first`, until the next menu: what is chosen there is looked up in the list again. */
function putFirst(list, type, first) {
  const before = list[type]
  list[type] = [...new Set([...first, ...(before ?? [])])]
  undo = () => {
    if (before === undefined) delete list[type]
    else list[type] = before
    undo = () => {}
  }
}

app.registerExtension({
  name: 'ModalityForcing.Suggestions',
  setup() {
    const { LiteGraph, LGraphCanvas } = window
    const original = LGraphCanvas?.prototype.showConnectionMenu
    if (!original) return // a frontend that suggests nodes in another way
    LGraphCanvas.prototype.showConnectionMenu = function (options) {
      undo()
      const node = options?.nodeFrom ?? options?.nodeTo
      const slot = options?.nodeFrom ? options.slotFrom : options?.slotTo
      const socket = typeof slot === 'object' ? slot : undefined
      const table = options?.nodeFrom ? AFTER : BEFORE
      const first = table[node?.comfyClass]?.[socket?.name]
      const list = options?.nodeFrom ? LiteGraph.slot_types_default_out : LiteGraph.slot_types_default_in
      if (first) putFirst(list, socket.type, first)
      return original.call(this, options)
    }
  }
})
