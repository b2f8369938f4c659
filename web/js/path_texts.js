// What the square of MF Path says, in the language of ComfyUI.
import { app } from '../../../scripts/app.js'

const ENGLISH = {
  across: 'picture: noise to clean',
  down: 'depth: noise to clean',
  noise: 'noise',
  finished: 'finished',
  pictureLeads: 'picture leads',
  depthLeads: 'depth leads',
  label: 'Path of the two noise levels',
  point: 'Point',
  values: 'picture noise {rgb}, depth noise {depth}',
  step: 'step {step} of {steps}: picture noise {rgb}, depth noise {depth}',
  summary: '{steps} steps',
  tiltHint: 'Drag the handle to tilt; double-click adds a point',
  pointsHint: 'Drag points; double-click adds one, Delete removes',
  plainHint: 'Double-click to edit as points',
  add: 'Add point',
  remove: 'Remove point',
  keys: 'Arrow keys move, Shift moves further, Insert adds, Delete removes',
  sampler: 'Path of MF Path'
}

const CHINESE = {
  across: '图像：噪波 → 干净',
  down: '深度：噪波 → 干净',
  noise: '噪波',
  finished: '完成',
  pictureLeads: '图像先行',
  depthLeads: '深度先行',
  label: '两个噪波水平的路径',
  point: '控制点',
  values: '图像噪波 {rgb}，深度噪波 {depth}',
  step: '第 {step} 步，共 {steps} 步：图像噪波 {rgb}，深度噪波 {depth}',
  summary: '{steps} 步',
  tiltHint: '拖动手柄改变倾斜；双击添加控制点',
  pointsHint: '拖动控制点；双击添加，Delete 删除',
  plainHint: '双击即可用控制点编辑',
  add: '添加控制点',
  remove: '删除控制点',
  keys: '方向键移动，按住 Shift 移动更远，Insert 添加，Delete 删除',
  sampler: '来自 MF Path 的路径'
}

/** A text of the square, with values in place of the names in braces. */
export function text(name, values = {}) {
  const locale = app.extensionManager?.setting?.get('Comfy.Locale') ?? 'en'
  const texts = locale.startsWith('zh') ? CHINESE : ENGLISH
  return texts[name].replace(/\{(\w+)\}/g, (_, key) => values[key])
}
