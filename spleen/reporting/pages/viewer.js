// The viewer of a scan: three linked planes, an oblique one, and surfaces. Data: the element #scan, see scan/viewer.py.
// window.viewer tells its state.
(async () => {
  const root = document.querySelector('.viewer');
  if (!root) return;
  const data = JSON.parse(document.getElementById('scan').textContent);
  const find = name => root.querySelector(`[data-part="${name}"]`);

  async function unpack(text) {
    let bytes;
    if (Uint8Array.fromBase64) bytes = Uint8Array.fromBase64(text);
    else {
      const raw = atob(text);
      bytes = new Uint8Array(raw.length);
      for (let n = 0; n < raw.length; n++) bytes[n] = raw.charCodeAt(n);
    }
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  async function unpack16(text) {
    const bytes = await unpack(text), n = bytes.length / 2, values = new Uint16Array(n);
    for (let i = 0; i < n; i++) values[i] = bytes[i] | bytes[n + i] << 8;
    return values;
  }

  let volume, unlabelled = null;
  const masks = {};
  try {
    volume = await unpack16(data.image);
    for (const [name, text] of Object.entries(data.masks)) masks[name] = await unpack(text);
    if (data.unlabelled) unlabelled = await unpack(data.unlabelled);
  } catch (error) {
    find('hint').textContent = 'This browser cannot unpack the scan; the pictures above are all it can show.';
    return;
  }

  // Geometry ---------------------------------------------------------------------------------------------------------
  const size = data.shape, strides = [1, size[0], size[0] * size[1]], affine = data.affine;
  const column = axis => [affine[0][axis], affine[1][axis], affine[2][axis]];
  const spacing = [0, 1, 2].map(axis => Math.hypot(...column(axis)));
  const toWorld = voxel => [0, 1, 2].map(row => affine[row].slice(0, 3).reduce((sum, each, n) => sum + each * voxel[n], affine[row][3]));
  const inverse = (() => {
    const [a, b, c] = [0, 1, 2].map(column);
    const cross = (p, q) => [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
    const rows = [cross(b, c), cross(c, a), cross(a, b)];
    const determinant = rows[0].reduce((sum, each, n) => sum + each * a[n], 0);
    return rows.map(row => row.map(each => each / determinant));
  })();
  const turned = vector => inverse.map(row => row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2]);
  const toVoxel = mm => turned(mm.map((each, n) => each - affine[n][3]));
  const native = voxel => voxel.map((each, n) => data.first[n] + each * data.factors[n] + ((data.factors[n] - 1) >> 1));
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const inside = voxel => voxel.map((each, n) => clamp(Math.round(each), 0, size[n] - 1));

  // State ------------------------------------------------------------------------------------------------------------
  const planes = [
    {axis: 'axial', n: 2, u: 0, v: 1, edges: 'RLAP'},
    {axis: 'coronal', n: 1, u: 0, v: 2, edges: 'RLSI'},
    {axis: 'sagittal', n: 0, u: 1, v: 2, edges: 'APSI'},
  ];
  const layers = [...Object.keys(masks), ...(unlabelled ? ['unlabelled'] : [])];  // that can be switched off
  const state = {
    voxel: inside(data.start), centre: inside(data.start), zoom: 1, level: data.windows[0].level, width: data.windows[0].width,
    opacity: 0.5, shown: Object.fromEntries(layers.map(name => [name, true])), axis: 'axial', drag: 'crosshair',
    pitch: 0, roll: 0,
  };
  const middle = () => state.zoom === 1 ? size.map(n => (n - 1) / 2) : state.centre;
  const grey = new Uint8Array(65536);
  const hex = text => [1, 3, 5].map(n => parseInt(text.slice(n, n + 2), 16));
  const colours = Object.fromEntries(Object.keys(masks).map(name => [name, data.classes.map(each => hex(each[name]))]));
  const dashed = data.classes.map(each => Object.keys(masks).length === 2 && each.reference === each.prediction);

  function setGrey() {
    const low = state.level - state.width / 2, scale = 255 / state.width;
    for (let n = 0; n < grey.length; n++) grey[n] = clamp((data.low + n * data.step - low) * scale, 0, 255);
  }

  // Drawing ----------------------------------------------------------------------------------------------------------
  function prepare(panel) {
    const ratio = Math.min(1.5, devicePixelRatio || 1), {canvas} = panel;
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (!panel.image || canvas.width !== width || canvas.height !== height) {
      canvas.width = width; canvas.height = height;
      panel.image = panel.context.createImageData(width, height);
      panel.labels = Object.fromEntries(Object.keys(masks).map(name => [name, new Uint8Array(width * height)]));
      panel.unlabelled = unlabelled && new Uint8Array(width * height);
    }
    panel.ratio = ratio;
  }

  // Along one direction of the screen: both neighbours, their weight, and the nearest, as offsets; −1 is outside.
  function steps(count, centre, perPixel, n, stride) {
    const first = new Int32Array(count), second = new Int32Array(count), weight = new Float32Array(count), nearest = new Int32Array(count);
    for (let p = 0; p < count; p++) {
      const place = centre - (p + 0.5 - count / 2) * perPixel, near = Math.round(place), low = Math.floor(place);
      nearest[p] = near < 0 || near >= n ? -1 : near * stride;
      first[p] = clamp(low, 0, n - 1) * stride; second[p] = clamp(low + 1, 0, n - 1) * stride; weight[p] = place - low;
    }
    return {first, second, weight, nearest};
  }

  function scaleOf(panel) {  // pixels per mm
    const [u, v] = panel.u === undefined ? [0, 1] : [panel.u, panel.v];
    return Math.min(panel.canvas.width / (size[u] * spacing[u]), panel.canvas.height / (size[v] * spacing[v])) * state.zoom;
  }

  function drawPlane(panel) {
    prepare(panel);
    const {width, height} = panel.canvas, {u, v, n} = panel, scale = scaleOf(panel), centre = middle();
    const key = JSON.stringify([state.voxel[n], centre, scale, width, height, state.level, state.width, state.opacity, state.shown]);
    if (key !== panel.key) { sample(panel, scale, centre); blend(panel); panel.key = key; }
    finish(panel, scale);
    const [x, y] = toScreen(panel, state.voxel, scale, centre);
    drawCrosshair(panel, x, y);
  }

  function sample(panel, scale, centre) {
    const {width, height} = panel.canvas, {u, v, n} = panel;
    const across = steps(width, centre[u], 1 / (scale * spacing[u]), size[u], strides[u]);
    const down = steps(height, centre[v], 1 / (scale * spacing[v]), size[v], strides[v]);
    const base = state.voxel[n] * strides[n], pixels = panel.image.data, visible = Object.keys(masks);
    for (let y = 0, p = 0; y < height; y++) {
      const top = base + down.first[y], bottom = base + down.second[y], wv = down.weight[y], row = down.nearest[y];
      for (let x = 0; x < width; x++, p++) {
        const column = across.nearest[x], outside = row < 0 || column < 0, wu = across.weight[x];
        const a = across.first[x], b = across.second[x];
        const upper = volume[top + a] * (1 - wu) + volume[top + b] * wu, lower = volume[bottom + a] * (1 - wu) + volume[bottom + b] * wu;
        const value = outside ? 0 : grey[(upper * (1 - wv) + lower * wv + 0.5) | 0];
        pixels[4 * p] = pixels[4 * p + 1] = pixels[4 * p + 2] = value; pixels[4 * p + 3] = 255;
        for (const name of visible) panel.labels[name][p] = outside ? 0 : masks[name][base + row + column];
        if (unlabelled) panel.unlabelled[p] = outside ? 0 : unlabelled[base + row + column];
      }
    }
  }

  const toScreen = (panel, voxel, scale, centre) => [[panel.u, panel.canvas.width], [panel.v, panel.canvas.height]]
    .map(([axis, length]) => length / 2 + (centre[axis] - voxel[axis]) * spacing[axis] * scale);

  function obliqueAxes() {  // across, down and out of the screen, in mm
    const [a, b] = [state.pitch, state.roll].map(degrees => degrees * Math.PI / 180);
    const turn = ([x, y, z]) => {  // first about the left-right axis, then about the anterior-posterior one
      const [p, q] = [y * Math.cos(a) - z * Math.sin(a), y * Math.sin(a) + z * Math.cos(a)];
      return [x * Math.cos(b) + q * Math.sin(b), p, q * Math.cos(b) - x * Math.sin(b)];
    };
    return [turn([-1, 0, 0]), turn([0, -1, 0])];
  }

  function drawOblique(panel) {
    prepare(panel);
    const {width, height} = panel.canvas, scale = scaleOf(panel), pixels = panel.image.data, visible = Object.keys(masks);
    const [across, down] = obliqueAxes(), du = turned(across.map(each => each / scale)), dv = turned(down.map(each => each / scale));
    const [nx, ny, nz] = size, sy = strides[1], sz = strides[2];
    for (let y = 0, p = 0; y < height; y++) for (let x = 0; x < width; x++, p++) {
      const a = x + 0.5 - width / 2, b = y + 0.5 - height / 2;
      const i = state.voxel[0] + a * du[0] + b * dv[0], j = state.voxel[1] + a * du[1] + b * dv[1], k = state.voxel[2] + a * du[2] + b * dv[2];
      const outside = i < -0.5 || j < -0.5 || k < -0.5 || i > nx - 0.5 || j > ny - 0.5 || k > nz - 0.5;
      let value = 0;
      if (!outside) {
        const i0 = clamp(Math.floor(i), 0, nx - 1), j0 = clamp(Math.floor(j), 0, ny - 1), k0 = clamp(Math.floor(k), 0, nz - 1);
        const di = i0 + 1 < nx ? 1 : 0, dj = j0 + 1 < ny ? sy : 0, dk = k0 + 1 < nz ? sz : 0, at = i0 + j0 * sy + k0 * sz;
        const wi = clamp(i - i0, 0, 1), wj = clamp(j - j0, 0, 1), wk = clamp(k - k0, 0, 1);
        const line = place => volume[place] * (1 - wi) + volume[place + di] * wi;
        const face = place => line(place) * (1 - wj) + line(place + dj) * wj;
        value = grey[(face(at) * (1 - wk) + face(at + dk) * wk + 0.5) | 0];
        const near = Math.min(nx - 1, Math.round(i)) + Math.min(ny - 1, Math.round(j)) * sy + Math.min(nz - 1, Math.round(k)) * sz;
        for (const name of visible) panel.labels[name][p] = masks[name][Math.max(0, near)];
        if (unlabelled) panel.unlabelled[p] = unlabelled[Math.max(0, near)];
      } else {
        for (const name of visible) panel.labels[name][p] = 0;
        if (unlabelled) panel.unlabelled[p] = 0;
      }
      pixels[4 * p] = pixels[4 * p + 1] = pixels[4 * p + 2] = value; pixels[4 * p + 3] = 255;
    }
    panel.edges = [across.map(each => -each), across, down.map(each => -each), down].map(direction =>
      [0, 1, 2].filter(n => Math.abs(direction[n]) > 0.38).sort((m, n) => Math.abs(direction[n]) - Math.abs(direction[m]))
        .map(n => (direction[n] > 0 ? 'RAS' : 'LPI')[n]).join(''));
    blend(panel);
    finish(panel, scale);
    drawCrosshair(panel, width / 2, height / 2);
  }

  function veil(panel) {  // a hatched veil where nobody has labelled; it does not fade with the masks
    const {width} = panel.canvas, pixels = panel.image.data, apart = Math.round(9 * panel.ratio), line = Math.round(2 * panel.ratio);
    for (let p = 0; p < panel.unlabelled.length; p++) {
      if (!panel.unlabelled[p]) continue;
      const stripe = (p % width + (p / width | 0)) % apart < line, colour = stripe ? [217, 220, 225] : [138, 143, 152];
      for (let k = 0; k < 3; k++) pixels[4 * p + k] += (stripe ? 1 : 0.35) * (colour[k] - pixels[4 * p + k]);
    }
  }

  function blend(panel) {
    const {width, height} = panel.canvas, pixels = panel.image.data;
    if (unlabelled && state.shown.unlabelled) veil(panel);
    for (const name of Object.keys(masks)) {
      if (!state.shown[name] || !state.opacity) continue;
      const labels = panel.labels[name], fill = 0.4 * state.opacity, line = Math.min(1, 2 * state.opacity);
      for (let p = 0; p < labels.length; p++) {
        const value = labels[p];
        if (!value) continue;
        const x = p % width;
        let edge = x && labels[p - 1] !== value || x < width - 1 && labels[p + 1] !== value || labels[p - width] !== value || labels[p + width] !== value;
        if (edge && dashed[value - 1] && name === 'reference') edge = (x + (p / width | 0)) % 10 < 5;
        const opacity = edge ? line : fill, colour = colours[name][value - 1];
        for (let k = 0; k < 3; k++) pixels[4 * p + k] += opacity * (colour[k] - pixels[4 * p + k]);
      }
    }
  }

  function finish(panel, scale) {
    const {context, canvas, ratio, edges} = panel, {width, height} = canvas;
    context.putImageData(panel.image, 0, 0);
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    context.textAlign = 'center'; context.textBaseline = 'middle'; context.lineJoin = 'round';
    const places = [[12 * ratio, height / 2], [width - 12 * ratio, height / 2], [width / 2, 12 * ratio], [width / 2, height - 12 * ratio]];
    [...edges].forEach((letter, n) => outlined(panel, letter, ...places[n]));
    const longest = width / 4 / scale, power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].map(step => step * power).find(each => each <= longest);
    context.strokeStyle = '#fff'; context.lineWidth = 2 * ratio;
    context.beginPath(); context.moveTo(10 * ratio, height - 10 * ratio); context.lineTo(10 * ratio + length * scale, height - 10 * ratio); context.stroke();
    context.textAlign = 'left';
    outlined(panel, `${+length.toPrecision(1)} mm`, 10 * ratio, height - 22 * ratio);
  }
  function outlined({context, ratio}, text, x, y) {
    context.strokeStyle = '#000'; context.lineWidth = 3 * ratio; context.strokeText(text, x, y);
    context.fillStyle = '#fff'; context.fillText(text, x, y);
  }
  function drawCrosshair({context, canvas, ratio}, x, y) {
    const gap = 9 * ratio;
    context.strokeStyle = 'rgba(255, 255, 255, 0.65)'; context.lineWidth = ratio;
    context.beginPath();
    for (const [a, b, c, d] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) { context.moveTo(a, b); context.lineTo(c, d); }
    context.stroke();
  }

  const panels = planes.map(plane => {
    const canvas = find(plane.axis);
    return {...plane, canvas, context: canvas.getContext('2d'), slider: find(`${plane.axis}-slice`), text: find(`${plane.axis}-text`)};
  });
  const oblique = {canvas: find('oblique'), context: find('oblique').getContext('2d'), edges: ['R', 'L', 'A', 'P']};

  let scheduled = false;
  function schedule() { if (!scheduled) { scheduled = true; requestAnimationFrame(draw); } }
  function draw() {
    scheduled = false;
    setGrey();
    panels.forEach(drawPlane);
    drawOblique(oblique);
    tell();
  }

  // Words and controls -----------------------------------------------------------------------------------------------
  const number = (value, digits) => value.toFixed(digits).replace('-', '−');
  function tell() {
    const here = native(state.voxel), mm = toWorld(state.voxel);
    const value = data.low + data.step * volume[state.voxel.reduce((sum, each, n) => sum + each * strides[n], 0)];
    const place = mm.map((each, n) => `${(each < 0 ? 'LPI' : 'RAS')[n]} ${number(Math.abs(each), 1)}`).join(', ');
    find('position').textContent = `voxel ${here.join(', ')} · ${place} mm · ${number(value, value % 1 ? 3 : 0)} ${data.unit}`;
    for (const panel of panels) {
      const text = `${here[panel.n]} of ${data.nativeShape[panel.n]}`;
      panel.text.textContent = text;
      panel.slider.value = state.voxel[panel.n];
      panel.slider.setAttribute('aria-valuetext', `slice ${text}`);
      panel.canvas.closest('figure').classList.toggle('active', panel.axis === state.axis);
    }
    find('level').value = +state.level.toPrecision(6); find('width').value = +state.width.toPrecision(6);
    for (const button of root.querySelectorAll('[data-window]')) {
      const each = data.windows[button.dataset.window];
      button.ariaPressed = each.level === state.level && each.width === state.width;
    }
    for (const name of layers) find(`show-${name}`).checked = state.shown[name];
    if (find('opacity')) find('opacity').value = state.opacity;
    find('zoom').textContent = `${Math.round(100 * state.zoom)} %`;
    find('pitch-text').textContent = `${state.pitch}°`; find('roll-text').textContent = `${state.roll}°`;
  }

  function go(voxel) {
    state.voxel = inside(voxel);
    for (const panel of panels) {  // keep the crosshair in sight
      const [x, y] = toScreen(panel, state.voxel, scaleOf(panel), middle());
      if (x < 0 || y < 0 || x > panel.canvas.width || y > panel.canvas.height) state.centre = [...state.voxel];
    }
    schedule();
  }
  function step(axis, by) { const voxel = [...state.voxel]; voxel[axis] += by; go(voxel); }
  function setWindow(level, width) {
    if (Number.isFinite(level)) state.level = level;
    if (Number.isFinite(width) && width > 0) state.width = width;
    schedule();
  }
  function zoom(factor) {
    if (state.zoom === 1) state.centre = [...state.voxel];
    state.zoom = clamp(state.zoom * factor, 1, 16);
    if (state.zoom < 1.01) state.zoom = 1;
    schedule();
  }
  function reset() {
    Object.assign(state, {zoom: 1, voxel: inside(data.start), pitch: 0, roll: 0});
    find('pitch').value = find('roll').value = 0;
    setWindow(data.windows[0].level, data.windows[0].width);
  }
  function toggle(name) { if (name in state.shown) { state.shown[name] = !state.shown[name]; schedule(); } }
  function showLargestError() {
    const worst = data.worst.find(each => each.axis === state.axis) ?? data.worst[0];
    if (!worst) return;
    find('error-text').textContent = worst.text;
    go(worst.voxel);
  }
  const worldOf = () => toWorld(state.voxel);

  for (const panel of panels) {
    panel.slider.max = size[panel.n] - 1;
    panel.slider.oninput = () => { const voxel = [...state.voxel]; voxel[panel.n] = +panel.slider.value; state.axis = panel.axis; go(voxel); };
    panel.canvas.addEventListener('focus', () => { state.axis = panel.axis; schedule(); });
    listen(panel, event => {
      const box = panel.canvas.getBoundingClientRect(), ratio = panel.ratio, scale = scaleOf(panel), centre = middle(), voxel = [...state.voxel];
      voxel[panel.u] = centre[panel.u] - ((event.clientX - box.left) * ratio - panel.canvas.width / 2) / (scale * spacing[panel.u]);
      voxel[panel.v] = centre[panel.v] - ((event.clientY - box.top) * ratio - panel.canvas.height / 2) / (scale * spacing[panel.v]);
      go(voxel);
    }, (dx, dy, from) => {
      const scale = scaleOf(panel) / panel.ratio;
      if (state.zoom === 1) return;
      state.centre = [...from.centre];
      state.centre[panel.u] += dx / (scale * spacing[panel.u]); state.centre[panel.v] += dy / (scale * spacing[panel.v]);
      state.centre = state.centre.map((each, n) => clamp(each, 0, size[n] - 1));
      schedule();
    }, by => step(panel.n, by));
  }
  listen(oblique, event => {
    const box = oblique.canvas.getBoundingClientRect(), scale = scaleOf(oblique) / oblique.ratio, [across, down] = obliqueAxes(), from = worldOf();
    const [x, y] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    go(toVoxel(from.map((each, n) => each + (x * across[n] + y * down[n]) / scale)));
  }, () => {}, () => {}, true);

  // Pointer: what `drag` says; with Shift or the right button the window, with Alt or the middle button the picture.
  function listen({canvas}, point, pan, scroll, atMostOnce = false) {
    let from = null;
    canvas.addEventListener('contextmenu', event => event.preventDefault());
    canvas.addEventListener('pointerdown', event => {
      event.preventDefault(); canvas.focus({preventScroll: true}); canvas.setPointerCapture(event.pointerId);
      const mode = event.shiftKey || event.button === 2 ? 'window' : event.altKey || event.button === 1 ? 'pan' : state.drag;
      from = {x: event.clientX, y: event.clientY, level: state.level, width: state.width, centre: [...middle()], mode};
      if (mode === 'crosshair') point(event);
    });
    canvas.addEventListener('pointermove', event => {
      if (!from) return;
      const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
      if (from.mode === 'crosshair') { if (!atMostOnce) point(event); }
      else if (from.mode === 'pan') pan(dx, dy, from);
      else setWindow(from.level + dy * from.width / 300, Math.max(from.width / 100, from.width * Math.exp(dx / 200)));
    });
    for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { from = null; });
    canvas.addEventListener('wheel', event => {
      if (document.activeElement !== canvas) return;
      event.preventDefault();
      if (event.ctrlKey) zoom(Math.exp(-event.deltaY / 200)); else scroll(event.deltaY < 0 ? 1 : -1);
    }, {passive: false});
  }

  for (const button of root.querySelectorAll('[data-window]')) button.onclick = () => { const {level, width} = data.windows[button.dataset.window]; setWindow(level, width); };
  for (const name of ['level', 'width']) find(name).onchange = () => setWindow(find('level').valueAsNumber, find('width').valueAsNumber);
  for (const name of layers) find(`show-${name}`).onchange = () => toggle(name);
  if (find('opacity')) find('opacity').oninput = () => { state.opacity = find('opacity').valueAsNumber; schedule(); };
  if (find('error')) find('error').onclick = showLargestError;
  for (const each of root.querySelectorAll('[name="drag"]')) each.onchange = () => { state.drag = each.value; };
  for (const name of ['pitch', 'roll']) find(name).oninput = () => { state[name] = find(name).valueAsNumber; schedule(); };
  find('zoom-in').onclick = () => zoom(1.25); find('zoom-out').onclick = () => zoom(1 / 1.25); find('reset').onclick = reset;

  const keys = {
    '+': () => zoom(1.25), '=': () => zoom(1.25), '-': () => zoom(1 / 1.25), '0': reset, e: showLargestError,
    r: () => toggle('reference'), p: () => toggle('prediction'),
    '[': () => { state.opacity = clamp(state.opacity - 0.1, 0, 1); schedule(); }, ']': () => { state.opacity = clamp(state.opacity + 0.1, 0, 1); schedule(); },
  };
  data.windows.forEach(({level, width}, n) => { keys[n + 1] = () => setWindow(level, width); });
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input:not([type=checkbox], [type=radio], [type=range]), select, textarea')) return;
    const plane = planes.find(each => each.axis === state.axis);
    const moves = {ArrowLeft: [plane.u, 1], ArrowRight: [plane.u, -1], ArrowUp: [plane.v, 1], ArrowDown: [plane.v, -1], PageUp: [plane.n, 1], PageDown: [plane.n, -1]};
    if (event.key in moves) {  // elsewhere these keys scroll the page, or move a slider
      if (!event.target.matches('.viewer canvas')) return;
      step(...moves[event.key]);
    } else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });

  // Surfaces ---------------------------------------------------------------------------------------------------------
  async function unpackMesh(mesh) {
    const levels = await unpack16(mesh.vertices), faces = await unpack(mesh.faces);
    const vertices = Float32Array.from(levels, (each, n) => mesh.low[n % 3] + each / 65535 * (mesh.high[n % 3] - mesh.low[n % 3]));
    return {vertices, faces: new Uint32Array(faces.buffer), colours: await unpack(mesh.colours)};
  }
  root.classList.add('ready');  // from here on the canvases have their size
  draw();
  new ResizeObserver(schedule).observe(root);
  performance.mark('planes ready');
  window.viewer = {
    get state() { return structuredClone({...state, native: native(state.voxel), mm: worldOf()}); },
    pixels: name => [...(name === 'oblique' ? oblique : panels.find(each => each.axis === name)).image.data],
    surface: null,
  };
  if (data.meshes.length) {
    const tiles = [];
    for (const mask of Object.keys(masks)) tiles.push({title: mask, meshes: await Promise.all(data.meshes.filter(each => each.mask === mask).map(unpackMesh))});
    window.viewer.surface = createSurfaces(find('surface'), tiles, mm => go(toVoxel(mm)));
  }
  performance.mark('surfaces ready');
  root.dataset.ready = 'yes';
  if (root.dataset.focus) panels[0].canvas.focus({preventScroll: true});
})();
