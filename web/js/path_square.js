// The square of MF Path: picture noise across, depth noise down, from noise in the upper left to finished in the lower
// right. It draws what it is given and tells of what people do to it; it knows no nodes.
import { text } from './path_texts.js'

const SVG = 'http://www.w3.org/2000/svg'
const SIDE = 200
const LEFT = 22
const TOP = 20
const SNAP = 0.02
const MOST_DOTS = 400

const STYLE = `
.mf-path { display: flex; flex-direction: column; gap: 4px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 220px; color: var(--input-text, #ddd); font: 12px var(--font-inter, Inter, sans-serif); user-select: none; }
.mf-path svg { flex: 1 1 0; min-height: 0; width: 100%; display: block; touch-action: none; }
.mf-path .board { fill: var(--comfy-input-bg, #222); stroke: var(--border-color, #4e4e4e); }
.mf-path .grid { stroke: var(--border-color, #4e4e4e); stroke-width: 0.5; opacity: 0.6; }
.mf-path .same { stroke: var(--descrip-text, #999); stroke-width: 0.7; stroke-dasharray: 3 3; opacity: 0.7; }
.mf-path .line { fill: none; stroke: var(--mf-accent); stroke-width: 2; stroke-linejoin: round; }
.mf-path .dot { fill: var(--mf-accent); }
.mf-path .dot.marked { fill: var(--input-text, #ddd); }
.mf-path text { fill: var(--descrip-text, #999); font-size: 9px; }
.mf-path .corner { fill: var(--input-text, #ddd); paint-order: stroke; stroke: var(--comfy-input-bg, #222); stroke-width: 3px; }
.mf-path .handle { fill: var(--comfy-input-bg, #222); stroke: var(--mf-accent); stroke-width: 2.5; cursor: grab; }
.mf-path .handle:hover { fill: var(--mf-accent); }
.mf-path .handle:focus { outline: none; fill: var(--mf-accent); stroke: var(--input-text, #ddd); }
.mf-path .foot { display: flex; align-items: center; gap: 4px; min-height: 22px; flex: none; }
.mf-path .said { flex: 1; overflow: hidden; line-height: 1.25; color: var(--descrip-text, #999); font-size: 11px; }
.mf-path .said.error { color: var(--error-text, #f55); }
.mf-path button { flex: none; width: 22px; height: 22px; border-radius: 4px; border: 1px solid var(--border-color, #4e4e4e);
  background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd); cursor: pointer; line-height: 1; }
.mf-path button:disabled { opacity: 0.35; cursor: default; }
.mf-path button:focus-visible { outline: 2px solid var(--mf-accent); }
.mf-path { --mf-accent: #3b9ddd; }
`

const x = (rgb) => LEFT + SIDE * (1 - rgb)
const y = (depth) => TOP + SIDE * (1 - depth)
const percent = (value) => Number(value).toFixed(2)
const snapped = (value) => (value < SNAP ? 0 : value > 1 - SNAP ? 1 : Math.round(value * 1000) / 1000)

function make(tag, attributes = {}, parent = null) {
  const element = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  parent?.append(element)
  return element
}

function label(parent, words, attributes) {
  make('text', attributes, parent).textContent = words
}

function drawBoard(svg) {
  make('rect', { class: 'board', x: LEFT, y: TOP, width: SIDE, height: SIDE, rx: 3 }, svg)
  for (const part of [0.25, 0.5, 0.75]) {
    make('line', { class: 'grid', x1: x(part), x2: x(part), y1: TOP, y2: TOP + SIDE }, svg)
    make('line', { class: 'grid', x1: LEFT, x2: LEFT + SIDE, y1: y(part), y2: y(part) }, svg)
  }
  make('line', { class: 'same', x1: x(1), y1: y(1), x2: x(0), y2: y(0) }, svg)
  const middle = TOP + SIDE / 2
  label(svg, text('across'), { x: LEFT + SIDE / 2, y: TOP - 8, 'text-anchor': 'middle' })
  label(svg, text('down'), {
    x: LEFT - 8, y: middle, 'text-anchor': 'middle', transform: `rotate(-90 ${LEFT - 8} ${middle})`
  })
  label(svg, text('noise'), { class: 'corner', x: LEFT + 11, y: TOP + 24 })
  label(svg, text('finished'), { class: 'corner', x: LEFT + SIDE - 11, y: TOP + SIDE - 18, 'text-anchor': 'end' })
  label(svg, text('pictureLeads'), { x: x(0.3), y: y(0.72), 'text-anchor': 'middle' })
  label(svg, text('depthLeads'), { x: x(0.7), y: y(0.28), 'text-anchor': 'middle' })
}

/**
 * @param {{move(index: number, rgb: number, depth: number): void, add(rgb: number, depth: number): void,
 *   insert(index: number): void, remove(index: number): void, done(): void}} actions what people do
 */
export class PathSquare {
  constructor(actions = null) {
    this.actions = actions
    this.state = { levels: { rgb: [], depth: [] }, handles: [], hint: '', error: '' }
    this.selected = 0
    this.element = document.createElement('div')
    this.element.className = 'mf-path'
    const style = document.createElement('style')
    style.textContent = STYLE
    this.svg = make('svg', {
      viewBox: `0 0 ${LEFT + SIDE + 8} ${TOP + SIDE + 8}`, role: 'group', 'aria-label': text('label')
    })
    drawBoard(this.svg)
    this.curve = make('g', { 'pointer-events': 'none' }, this.svg)
    this.grips = make('g', {}, this.svg)
    this.foot = document.createElement('div')
    this.foot.className = 'foot'
    this.said = document.createElement('span')
    this.said.className = 'said'
    this.said.setAttribute('aria-live', 'polite')
    this.foot.append(this.said)
    this.element.append(style, this.svg, this.foot)
    if (actions) this.listen()
    this.svg.addEventListener('pointermove', (event) => this.nameStep(event))
    this.svg.addEventListener('pointerleave', () => this.say())
  }

  /** Show levels, the points that can be moved, a hint and an error. */
  draw(state) {
    this.state = state
    this.drawCurve()
    this.drawHandles()
    this.say()
  }

  drawCurve() {
    const { rgb, depth } = this.state.levels
    const places = rgb.map((level, index) => `${x(level).toFixed(2)},${y(depth[index]).toFixed(2)}`)
    this.curve.replaceChildren()
    make('polyline', { class: 'line', points: places.join(' ') }, this.curve)
    const stride = Math.ceil(rgb.length / MOST_DOTS)
    const radius = rgb.length > 60 ? 1.6 : 2.4
    rgb.forEach((level, index) => {
      if (index % stride) return
      make('circle', { class: 'dot', cx: x(level), cy: y(depth[index]), r: radius, 'data-step': index }, this.curve)
    })
  }

  drawHandles() {
    const { handles } = this.state
    while (this.grips.childElementCount > handles.length) this.grips.lastElementChild.remove()
    while (this.grips.childElementCount < handles.length) {
      make('circle', { class: 'handle', r: 6, tabindex: 0, role: 'slider', 'aria-valuemin': 0, 'aria-valuemax': 1 }, this.grips)
    }
    handles.forEach((handle, index) => {
      const grip = this.grips.children[index]
      grip.setAttribute('cx', x(handle.rgb))
      grip.setAttribute('cy', y(handle.depth))
      grip.setAttribute('aria-label', `${text('point')} ${index + 1}. ${text('keys')}`)
      grip.setAttribute('aria-valuenow', percent(handle.depth))
      grip.setAttribute('aria-valuetext', text('values', { rgb: percent(handle.rgb), depth: percent(handle.depth) }))
    })
    if (!this.actions) return
    this.removeButton.disabled = !handles[this.selected]?.removable
  }

  say(words = null) {
    const { error, hint, levels } = this.state
    const steps = Math.max(levels.rgb.length - 1, 0)
    this.said.classList.toggle('error', Boolean(error))
    this.said.textContent = error || words || [steps ? text('summary', { steps }) : '', hint].filter(Boolean).join(' · ')
  }

  listen() {
    this.addButton = this.button('+', text('add'), () => this.actions.insert(this.selected))
    this.removeButton = this.button('−', text('remove'), () => this.actions.remove(this.selected))
    this.grips.addEventListener('focusin', (event) => this.select(event.target))
    this.svg.addEventListener('pointerdown', (event) => this.grab(event))
    this.svg.addEventListener('dblclick', (event) => {
      event.stopPropagation()
      if (this.indexOf(event.target) >= 0) return
      const [rgb, depth] = this.place(event)
      this.actions.add(rgb, depth)
      this.actions.done()
    })
    this.svg.addEventListener('keydown', (event) => this.press(event))
    this.svg.addEventListener('keyup', () => this.actions.done())
  }

  button(sign, title, act) {
    const button = document.createElement('button')
    button.type = 'button'
    button.textContent = sign
    button.title = title
    button.setAttribute('aria-label', title)
    button.addEventListener('click', () => {
      act()
      this.actions.done()
    })
    this.foot.append(button)
    return button
  }

  indexOf(element) {
    return [...this.grips.children].indexOf(element)
  }

  select(grip) {
    this.selected = Math.max(0, this.indexOf(grip))
    this.drawHandles()
    const { rgb, depth } = this.state.handles[this.selected] ?? {}
    if (rgb !== undefined) this.say(text('values', { rgb: percent(rgb), depth: percent(depth) }))
  }

  /** Noise levels under the pointer. */
  place(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse())
    const within = (value) => snapped(Math.min(1, Math.max(0, value)))
    return [within(1 - (point.x - LEFT) / SIDE), within(1 - (point.y - TOP) / SIDE)]
  }

  grab(event) {
    const index = this.indexOf(event.target)
    if (event.button !== 0 || index < 0) return
    event.preventDefault()
    event.stopPropagation()
    const grip = event.target
    grip.focus({ preventScroll: true })
    grip.setPointerCapture(event.pointerId)
    const drag = (moved) => {
      this.actions.move(index, ...this.place(moved))
      const { rgb, depth } = this.state.handles[index]
      this.say(text('values', { rgb: percent(rgb), depth: percent(depth) }))
    }
    const drop = () => {
      grip.removeEventListener('pointermove', drag)
      this.actions.done()
    }
    grip.addEventListener('pointermove', drag)
    grip.addEventListener('lostpointercapture', drop, { once: true })
  }

  press(event) {
    const index = this.indexOf(event.target)
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return
    const far = event.shiftKey ? 0.1 : 0.01
    // On the board, right and down are less noise.
    const moves = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] }
    const { rgb, depth } = this.state.handles[index]
    if (moves[event.key]) {
      this.actions.move(index, rgb + moves[event.key][0], depth + moves[event.key][1])
      this.select(event.target)
    } else if (event.key === 'Delete' || event.key === 'Backspace') {
      this.actions.remove(index)
      this.grips.children[Math.min(index, this.grips.childElementCount - 1)]?.focus({ preventScroll: true })
    } else if (event.key === 'Insert' || event.key === '+') {
      this.actions.insert(index)
      this.grips.children[index + 1]?.focus({ preventScroll: true })
    } else {
      return
    }
    // Or the canvas would move or delete the node.
    event.preventDefault()
    event.stopPropagation()
  }

  /** Say which step is under the pointer. */
  nameStep(event) {
    if (event.buttons || this.indexOf(event.target) >= 0) return
    const { rgb, depth } = this.state.levels
    const [across, down] = this.place(event)
    let nearest = -1
    let least = 0.05 ** 2
    rgb.forEach((level, index) => {
      const distance = (level - across) ** 2 + (depth[index] - down) ** 2
      if (distance < least) [nearest, least] = [index, distance]
    })
    for (const dot of this.curve.querySelectorAll('.dot')) dot.classList.toggle('marked', Number(dot.dataset.step) === nearest)
    if (nearest < 0) return this.say()
    const levels = { rgb: percent(rgb[nearest]), depth: percent(depth[nearest]) }
    this.say(text('step', { step: nearest, steps: rgb.length - 1, ...levels }))
  }
}
