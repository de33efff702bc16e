/** Small drawings on canvas: a number's recent past in a table cell, the message rate in the head of the page. */

/**
 * Makes a canvas as sharp as the screen, and clears it.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width CSS pixels
 * @param {number} height CSS pixels
 * @returns {CanvasRenderingContext2D}
 */
export function clear(canvas, width, height) {
  const scale = globalThis.devicePixelRatio || 1;
  const context = canvas.getContext("2d");
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/**
 * Draws a trend as a line with a dot at its newest point. One point is a dot alone.
 * @param {HTMLCanvasElement} canvas
 * @param {import("./trend.js").Trend} trend
 * @param {{width: number, height: number, color: string}} look
 */
export function drawSparkline(canvas, trend, { width, height, color }) {
  const context = clear(canvas, width, height);
  const { min, max } = trend.bounds();
  const flat = !(max > min);
  const inset = 3;
  const step = (width - 2 * inset) / Math.max(1, trend.length - 1);
  const y = (value) => (flat ? height / 2 : inset + ((max - value) / (max - min)) * (height - 2 * inset));
  const left = width - inset - step * (trend.length - 1);
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = 1.25;
  context.lineJoin = "round";
  context.beginPath();
  for (let index = 0; index < trend.length; index += 1) context.lineTo(left + step * index, y(trend.value(index)));
  context.stroke();
  context.beginPath();
  context.arc(width - inset, y(trend.last), 2, 0, 2 * Math.PI);
  context.fill();
}

/**
 * Draws the message rate of the last minute as bars.
 * @param {HTMLCanvasElement} canvas
 * @param {import("./rate.js").MessageRate} messageRate
 * @param {{width: number, height: number, color: string, nowMs: number, slots: number}} look
 */
export function drawPulse(canvas, messageRate, { width, height, color, nowMs, slots }) {
  const context = clear(canvas, width, height);
  const rates = [];
  messageRate.each(nowMs, (perSecond) => rates.push(perSecond));
  const shown = rates.slice(-slots);
  const top = Math.max(1, ...shown);
  const step = width / slots;
  context.fillStyle = color;
  shown.forEach((perSecond, index) => {
    const bar = perSecond ? Math.max(1.5, (perSecond / top) * height) : 1;
    context.globalAlpha = perSecond ? 1 : 0.35;
    context.fillRect((slots - shown.length + index) * step, height - bar, Math.max(1, step - 1), bar);
  });
  context.globalAlpha = 1;
}
