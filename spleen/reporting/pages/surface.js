// Surfaces in 3D, drawn by the processor: triangles with a depth buffer, so that no graphics card is needed.
// createSurfaces(canvas, tiles, onPick): tiles are [{title, meshes: [{vertices, faces, colours}]}] with vertices in mm.
function createSurfaces(canvas, tiles, onPick) {
  const context = canvas.getContext('2d');
  const view = {turn: 0, tilt: 0.15, zoom: 1};
  const all = tiles.flatMap(tile => tile.meshes);
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (const mesh of all) {
    for (let n = 0; n < mesh.vertices.length; n++) {
      low[n % 3] = Math.min(low[n % 3], mesh.vertices[n]); high[n % 3] = Math.max(high[n % 3], mesh.vertices[n]);
    }
    mesh.normals = vertexNormals(mesh);
  }
  const middle = low.map((each, axis) => (each + high[axis]) / 2);
  const diameter = Math.hypot(...low.map((each, axis) => high[axis] - each)) || 1;
  let hits = [], scheduled = false;

  function vertexNormals({vertices, faces}) {
    const normals = new Float32Array(vertices.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      const ux = vertices[b] - vertices[a], uy = vertices[b + 1] - vertices[a + 1], uz = vertices[b + 2] - vertices[a + 2];
      const vx = vertices[c] - vertices[a], vy = vertices[c + 1] - vertices[a + 1], vz = vertices[c + 2] - vertices[a + 2];
      const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      for (const v of [a, b, c]) { normals[v] += x; normals[v + 1] += y; normals[v + 2] += z; }
    }
    for (let n = 0; n < normals.length; n += 3) {
      const length = Math.hypot(normals[n], normals[n + 1], normals[n + 2]) || 1;
      normals[n] /= length; normals[n + 1] /= length; normals[n + 2] /= length;
    }
    return normals;
  }

  // Rows: to the right of the screen, upwards, towards the viewer. At rest the patient is seen from the front.
  function axes() {
    const [s, c, u, v] = [Math.sin(view.turn), Math.cos(view.turn), Math.sin(view.tilt), Math.cos(view.tilt)];
    return [[-c, -s, 0], [u * s, -u * c, v], [-v * s, v * c, u]];
  }

  function drawTile(tile, pixels, width, left, tileWidth, height, scale) {
    const [right, up, near] = axes();
    const depth = new Float32Array(tileWidth * height).fill(-Infinity);
    const hit = new Int32Array(tileWidth * height).fill(-1);
    let offset = 0;
    for (const {vertices, faces, colours, normals} of tile.meshes) {
      const n = vertices.length / 3, screen = new Float32Array(3 * n), lit = new Float32Array(3 * n);
      for (let i = 0; i < 3 * n; i += 3) {
        const x = vertices[i] - middle[0], y = vertices[i + 1] - middle[1], z = vertices[i + 2] - middle[2];
        screen[i] = tileWidth / 2 + scale * (right[0] * x + right[1] * y + right[2] * z);
        screen[i + 1] = height / 2 - scale * (up[0] * x + up[1] * y + up[2] * z);
        screen[i + 2] = near[0] * x + near[1] * y + near[2] * z;
        const [a, b, c] = [normals[i], normals[i + 1], normals[i + 2]];
        const front = near[0] * a + near[1] * b + near[2] * c, above = up[0] * a + up[1] * b + up[2] * c;
        const light = 0.55 + 0.5 * Math.max(0, 0.85 * front + 0.5 * above);
        for (let k = 0; k < 3; k++) lit[i + k] = colours[i + k] * light;
      }
      for (let f = 0; f < faces.length; f += 3) {
        const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
        const ax = screen[a], ay = screen[a + 1], bx = screen[b], by = screen[b + 1], cx = screen[c], cy = screen[c + 1];
        const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
        if (area >= 0) continue;  // seen from inside
        const x0 = Math.max(0, Math.ceil(Math.min(ax, bx, cx))), x1 = Math.min(tileWidth - 1, Math.floor(Math.max(ax, bx, cx)));
        const y0 = Math.max(0, Math.ceil(Math.min(ay, by, cy))), y1 = Math.min(height - 1, Math.floor(Math.max(ay, by, cy)));
        for (let y = y0; y <= y1; y++) for (let x = x0; x <= x1; x++) {
          const wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area;
          const wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area;
          const wa = 1 - wb - wc;
          if (wa < 0 || wb < 0 || wc < 0) continue;
          const z = wa * screen[a + 2] + wb * screen[b + 2] + wc * screen[c + 2], place = y * tileWidth + x;
          if (z <= depth[place]) continue;
          depth[place] = z;
          hit[place] = offset + (wa > wb ? (wa > wc ? a : c) : (wb > wc ? b : c)) / 3;
          const p = 4 * (y * width + left + x);
          for (let k = 0; k < 3; k++) pixels[p + k] = wa * lit[a + k] + wb * lit[b + k] + wc * lit[c + k];
          pixels[p + 3] = 255;
        }
      }
      offset += n;
    }
    return hit;
  }

  function draw() {
    scheduled = false;
    const ratio = Math.min(1.5, devicePixelRatio || 1);
    const width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    const shown = tiles.filter(tile => tile.meshes.length), tileWidth = Math.floor(width / Math.max(1, shown.length));
    const scale = 1.2 * Math.min(tileWidth, height) / diameter * view.zoom;
    const image = context.createImageData(width, height);
    hits = shown.map((tile, n) => ({tile, tileWidth, height, ratio,
      hit: drawTile(tile, image.data, width, n * tileWidth, tileWidth, height, scale)}));
    context.putImageData(image, 0, 0);
    context.font = `${13 * ratio}px system-ui, sans-serif`;
    context.fillStyle = '#fff'; context.textBaseline = 'top';
    shown.forEach((tile, n) => context.fillText(tile.title, n * tileWidth + 10 * ratio, 8 * ratio));
    drawTriad(ratio, height);
  }

  function drawTriad(ratio, height) {
    const [right, up] = axes(), x = 34 * ratio, y = height - 34 * ratio;
    context.strokeStyle = '#9aa4b1'; context.lineWidth = 1.5 * ratio; context.textAlign = 'center'; context.textBaseline = 'middle';
    ['R', 'A', 'S'].forEach((letter, axis) => {
      const [dx, dy] = [right[axis], -up[axis]];
      context.beginPath(); context.moveTo(x, y); context.lineTo(x + 18 * ratio * dx, y + 18 * ratio * dy); context.stroke();
      if (Math.hypot(dx, dy) > 0.3) context.fillText(letter, x + 26 * ratio * dx, y + 26 * ratio * dy);
    });
    context.textAlign = 'left';
  }

  function schedule() { if (!scheduled) { scheduled = true; requestAnimationFrame(draw); } }

  function pick(event) {
    const box = canvas.getBoundingClientRect();
    for (const [n, {tile, tileWidth, height, ratio, hit}] of hits.entries()) {
      const x = Math.round((event.clientX - box.left) * ratio) - n * tileWidth, y = Math.round((event.clientY - box.top) * ratio);
      if (x < 0 || x >= tileWidth || y < 0 || y >= height) continue;
      let vertex = hit[y * tileWidth + x];
      if (vertex < 0) return;
      for (const {vertices} of tile.meshes) {
        if (vertex < vertices.length / 3) { onPick([...vertices.subarray(3 * vertex, 3 * vertex + 3)]); return; }
        vertex -= vertices.length / 3;
      }
    }
  }

  let start = null;
  canvas.addEventListener('pointerdown', event => {
    canvas.focus({preventScroll: true}); canvas.setPointerCapture(event.pointerId);
    start = {x: event.clientX, y: event.clientY, ...view, moved: false};
  });
  canvas.addEventListener('pointermove', event => {
    if (!start) return;
    const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
    start.moved ||= Math.hypot(dx, dy) > 3;
    view.turn = start.turn + dx / 120; view.tilt = Math.max(-1.57, Math.min(1.57, start.tilt + dy / 120));
    schedule();
  });
  canvas.addEventListener('pointerup', event => { if (start && !start.moved) pick(event); start = null; });
  canvas.addEventListener('wheel', event => {
    if (document.activeElement !== canvas) return;
    event.preventDefault(); view.zoom = Math.max(0.3, Math.min(12, view.zoom * Math.exp(-event.deltaY / 400))); schedule();
  }, {passive: false});
  canvas.addEventListener('keydown', event => {
    const turns = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    const zoom = {'+': 1.2, '=': 1.2, '-': 1 / 1.2}[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !turns && !zoom) return;
    if (turns) { view.turn += turns[0] / 6; view.tilt = Math.max(-1.57, Math.min(1.57, view.tilt + turns[1] / 6)); }
    if (zoom) view.zoom = Math.max(0.3, Math.min(12, view.zoom * zoom));
    event.preventDefault(); event.stopPropagation(); schedule();
  });
  new ResizeObserver(schedule).observe(canvas);
  draw();
  return view;
}
