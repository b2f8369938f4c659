// What goes wrong is said where people look: the first sentence of an error of this pack's nodes, and what a run that
// goes on has to say, as toasts with the node's name.
import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'

const NOTICE = 'modality_forcing.notice'
const LIFE = 12000 // ms

// The Python module of every kind of node, by which a pack's nodes are told from those of others.
const modules = new Map()
const isOurs = (type) => modules.has(type) && modules.get(type) === modules.get('MFLoadModel')

/** The node of an id such as 3 or, within subgraphs, 7:3. */
function findNode(id) {
  let graph = app.graph?.rootGraph ?? app.graph
  let node
  for (const part of String(id).split(':')) {
    node = graph?.getNodeById?.(Number(part))
    graph = node?.subgraph
  }
  return node
}

function toast(severity, summary, detail) {
  app.extensionManager.toast.add({ severity, summary, detail, life: LIFE })
}

/** Whether the latent at a node's input is a depth stream of this pack's nodes. */
function takesDepth(node) {
  const socket = node?.inputs?.findIndex((input) => input.name === 'samples')
  const origin = socket >= 0 ? node.getInputNode(socket) : undefined
  const link = socket >= 0 ? node.getInputLink(socket) : undefined
  return isOurs(origin?.comfyClass) && origin.outputs[link.origin_slot]?.name === 'depth'
}

app.registerExtension({
  name: 'ModalityForcing.Notices',
  beforeRegisterNodeDef(_type, { name, python_module }) {
    modules.set(name, python_module)
  },
  setup() {
    api.addEventListener(NOTICE, ({ detail }) => {
      toast('warn', findNode(detail.node)?.title ?? 'Modality Forcing', detail.text)
    })
    api.addEventListener('execution_error', ({ detail }) => {
      const node = findNode(detail.node_id)
      if (isOurs(detail.node_type)) {
        const name = node?.title ?? detail.node_type
        const [sentence] = detail.exception_message.trim().split('\n')
        toast('error', name, sentence.replace(`${name.split(' (')[0]}: `, ''))
      } else if (detail.node_type.startsWith('VAEDecode') && takesDepth(node)) {
        toast('error', node.title, 'This latent is depth and not a picture: connect it to Depth Detokenize.')
      }
    })
  }
})
