// The square on MF Path, and on an MF Sampler that a path is connected to. Every value is in the node's ordinary widgets
// (shape, tilt, points and so on): the square writes those and shows the path that the server makes of them.
import { api } from '../../../scripts/api.js'
import { app } from '../../../scripts/app.js'
import { PathSquare } from './path_square.js'
import { text } from './path_texts.js'

const NODE = 'MFPath'
const SAMPLER = 'MFSampler'
const SHAPES = { tilt: 'tilt', points: 'points' }
const GREATEST_TILT = 10
const HEIGHT = 270
/** Widgets that only some shapes use. */
const USED_BY = {
  tilt: ['tilt'],
  points: ['points'],
  rgb_by: ['finish'],
  depth_by: ['finish'],
  control_strength: ['image to depth', 'depth to image'],
  start_rgb: ['tilt', 'points', 'shifts', 'finish', 'depth to image'],
  start_depth: ['tilt', 'points', 'shifts', 'finish', 'image to depth'],
  mu: ['tilt', 'points', 'shifts', 'finish', 'depth to image'],
  sigma: ['tilt', 'points', 'shifts', 'finish', 'depth to image'],
  depth_mu: ['shifts', 'finish', 'image to depth'],
  depth_sigma: ['shifts', 'finish', 'image to depth']
}
/** Widgets of MF Sampler that a path replaces. */
const REPLACED = ['steps', 'tilt', 'sampler_name', 'scheduler', 'denoise', 'control_strength']

const editors = new WeakMap()
const views = new WeakMap()

const clamp = (value, low, high) => Math.min(high, Math.max(low, value))
const rounded = (value) => Math.round(value * 1000) / 1000
const logit = (level) => Math.log2(level / (1 - level))

function parsePoints(words) {
  const pairs = words.trim().split(/\s+/).map((part) => part.split(',').map(Number))
  return pairs.every((pair) => pair.length === 2 && pair.every(Number.isFinite)) ? pairs : []
}

const formatPoints = (points) => points.map((pair) => pair.map(rounded).join(',')).join(' ')

/** Points on the way of levels that outline it: its ends and some between. */
function outline({ rgb, depth }, between = 3) {
  const places = Array.from({ length: between + 2 }, (_, index) => Math.round((index * (rgb.length - 1)) / (between + 1)))
  return [...new Set(places)].map((place) => [rounded(rgb[place]), rounded(depth[place])])
}

class PathEditor {
  constructor(node) {
    this.node = node
    this.levels = { rgb: [], depth: [] }
    this.error = ''
    this.watchers = new Set()
    this.square = new PathSquare({
      move: (index, rgb, depth) => this.move(index, rgb, depth),
      add: (rgb, depth) => this.add([rgb, depth]),
      insert: (index) => this.insert(index),
      remove: (index) => this.remove(index),
      done: () => app.extensionManager.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.()
    })
  }

  get values() {
    const own = this.node.widgets.filter((widget) => widget.serialize !== false)
    return Object.fromEntries(own.map((widget) => [widget.name, widget.value]))
  }

  set(name, value) {
    const widget = this.node.widgets.find((one) => one.name === name)
    if (widget.value === value) return
    widget.value = value
    widget.callback?.(value)
    this.node.setDirtyCanvas(true, true)
  }

  get points() {
    return parsePoints(this.values.points)
  }

  set points(points) {
    this.set('points', formatPoints(points))
    this.set('shape', SHAPES.points)
    this.refresh()
  }

  /** Before the first change of another shape, or of points that cannot be read, the path's outline becomes the points. */
  get editable() {
    const points = this.values.shape === SHAPES.points ? this.points : []
    return points.length > 1 || !this.levels.rgb.length ? points : outline(this.levels)
  }

  get handles() {
    const { shape, tilt } = this.values
    if (shape === SHAPES.points) {
      const { points } = this
      return points.map(([rgb, depth], index) => ({ rgb, depth, removable: index > 0 && index < points.length - 1 }))
    }
    if (shape !== SHAPES.tilt) return []
    // Where the tilt's curve crosses the other diagonal: there, the odds of the two levels are each other's inverse.
    const depth = 1 / (1 + 2 ** (-tilt / 2))
    return [{ rgb: 1 - depth, depth, removable: false }]
  }

  move(index, rgb, depth) {
    if (this.values.shape === SHAPES.tilt) {
      const odds = logit(clamp(depth, 0.001, 0.999)) - logit(clamp(rgb, 0.001, 0.999))
      this.set('tilt', clamp(Math.round(odds * 10) / 10, -GREATEST_TILT, GREATEST_TILT))
      return this.refresh()
    }
    const { points } = this
    const before = points[index - 1] ?? [1, 1]
    const after = points[index + 1] ?? [0, 0]
    points[index] = [clamp(rgb, after[0], before[0]), clamp(depth, after[1], before[1])]
    this.points = points
  }

  /** A point where both levels lie between those of its neighbors. */
  add([rgb, depth]) {
    const points = this.editable
    if (points.length < 2) return
    const place = points.findIndex((point) => point[0] + point[1] < rgb + depth)
    const index = clamp(place < 0 ? points.length - 1 : place, 1, points.length - 1)
    const [before, after] = [points[index - 1], points[index]]
    points.splice(index, 0, [clamp(rgb, after[0], before[0]), clamp(depth, after[1], before[1])])
    this.points = points
  }

  /** A point halfway from one to the next. */
  insert(index) {
    const points = this.editable
    if (points.length < 2) return
    const place = clamp(index, 0, points.length - 2)
    const [before, after] = [points[place], points[place + 1]]
    points.splice(place + 1, 0, [(before[0] + after[0]) / 2, (before[1] + after[1]) / 2])
    this.points = points
  }

  remove(index) {
    if (!this.handles[index]?.removable) return
    this.points = this.points.filter((_, place) => place !== index)
  }

  showUsed() {
    const { shape } = this.values
    if (shape === this.shape) return
    this.shape = shape
    for (const [name, shapes] of Object.entries(USED_BY)) {
      const widget = this.node.widgets.find((one) => one.name === name)
      widget.hidden = widget.options.hidden = !shapes.includes(shape)
    }
    fit(this.node)
  }

  draw() {
    this.showUsed()
    const { shape } = this.values
    const hint = text(shape === SHAPES.points ? 'pointsHint' : shape === SHAPES.tilt ? 'tiltHint' : 'plainHint')
    const state = { levels: this.levels, handles: this.handles, error: this.error, hint }
    this.square.draw(state)
    for (const watcher of this.watchers) watcher(state)
  }

  /** Draw the handles now, and the path when the server has made it; of many changes, the last. */
  async refresh() {
    this.draw()
    const wanted = JSON.stringify(this.values)
    if (this.asking || wanted === this.known) return
    this.asking = true
    try {
      const answer = await api.fetchApi('/mforce/path', {
        method: 'POST', headers: { 'Content-Type': 'application/json' }, body: wanted
      })
      const { rgb, depth, error = '' } = await answer.json()
      if (rgb) this.levels = { rgb, depth }
      this.error = error
    } catch (problem) {
      this.error = String(problem.message)
    }
    this.known = wanted
    this.asking = false
    this.refresh()
  }
}

function chain(object, name, after) {
  const before = object[name]
  object[name] = function (...values) {
    const result = before?.apply(this, values)
    after.apply(this, values)
    return result
  }
}

/** Make room for what a node shows; a node that people made larger stays so. */
function fit(node) {
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width, 300), Math.max(node.size[1], height)])
  node.setDirtyCanvas(true, true)
}

function addSquare(node, name, square) {
  const widget = node.addDOMWidget(name, 'MF_PATH_SQUARE', square.element, {
    serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT
  })
  widget.serialize = false // nor does it count among a workflow's values
  return widget
}

function edit(node) {
  const editor = new PathEditor(node)
  editors.set(node, editor)
  addSquare(node, 'square', editor.square)
  for (const widget of node.widgets) {
    if (widget.serialize !== false) chain(widget, 'callback', () => editor.refresh())
  }
  chain(node, 'onConfigure', () => editor.refresh())
  node.setSize([0, 0])
  editor.refresh()
}

/** An MF Sampler with a path shows it, and what the path decides cannot be set beside it. */
class PathView {
  constructor(node) {
    this.node = node
    this.show = (state) => this.square?.draw({ ...state, handles: [], hint: text('sampler') })
  }

  update() {
    const source = this.node.getInputNode(this.node.findInputSlot('path'))
    const editor = editors.get(source)
    if (editor === this.editor) return
    this.editor?.watchers.delete(this.show)
    this.editor = editor
    for (const widget of this.node.widgets) {
      if (REPLACED.includes(widget.name)) widget.disabled = widget.options.disabled = Boolean(editor)
    }
    if (editor) this.attach(editor)
    else this.detach()
  }

  attach(editor) {
    this.square ??= new PathSquare()
    this.widget ??= addSquare(this.node, 'path square', this.square)
    editor.watchers.add(this.show)
    editor.draw()
    fit(this.node)
  }

  detach() {
    if (!this.widget) return
    this.node.removeWidget(this.widget)
    this.widget = this.square = undefined
    this.node.setSize([this.node.size[0], this.node.computeSize()[1]])
  }
}

app.registerExtension({
  name: 'ModalityForcing.Path',
  nodeCreated(node) {
    if (node.comfyClass === NODE) edit(node)
    if (node.comfyClass !== SAMPLER) return
    const view = new PathView(node)
    views.set(node, view)
    chain(node, 'onConnectionsChange', () => view.update())
    chain(node, 'onRemoved', () => view.editor?.watchers.delete(view.show))
  },
  afterConfigureGraph() {
    for (const node of app.graph.nodes) views.get(node)?.update()
  }
})
