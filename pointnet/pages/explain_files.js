"use strict";
// Files of readers: OFF, OBJ, PLY, STL and XYZ to points as `predict` takes them. Nothing leaves the page.

const READERS = {
  off: readOFF,
  obj: readOBJ,
  ply: readPLY,
  stl: readSTL,
  xyz: readXYZ,
  txt: readXYZ,
  pts: readXYZ,
  csv: readXYZ,
};
const FEWEST = 3;
const STRAY_GAP = 1.6, // as points/frame.py has them: how much farther stray points are, and their largest share
  STRAY_SHARE = 0.005;

function readPoints(name, buffer, count) {
  // the file's bytes -> Float32Array of x y z of up to `count` points
  const suffix = name.split(".").pop().toLowerCase();
  if (!READERS[suffix])
    throw new Error(`only OFF, OBJ, PLY, STL and XYZ are read here; in a terminal, pointnet predict reads others too`);
  const {vertices, faces} = READERS[suffix](buffer),
    random = generator(0);
  if (vertices.length < FEWEST) throw new Error(`no ${FEWEST} points were found in it`);
  if (vertices.some(vertex => vertex.length < 3 || !vertex.every(Number.isFinite)))
    throw new Error("not every point has three numbers");
  if (faces.some(face => face.some(v => !vertices[v]))) throw new Error("a face names a vertex that is not there");
  return inUnitSphere(
    faces.length ? drawOnSurface(vertices, faces, count, random) : drawRows(vertices, count, random),
  );
}

function drawRows(rows, count, random) {
  // without replacement
  const left = rows.slice();
  for (let n = 0; n < Math.min(count, rows.length); n++) {
    const other = n + Math.floor(random() * (left.length - n));
    [left[n], left[other]] = [left[other], left[n]];
  }
  return left.slice(0, count);
}

function drawOnSurface(vertices, faces, count, random) {
  // uniformly by area
  let total = 0;
  const sums = faces.map(([a, b, c]) => {
    const [u, v] = [b, c].map(corner => vertices[corner].map((value, i) => value - vertices[a][i]));
    return (total += Math.hypot(u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]));
  });
  if (!(total > 0)) throw new Error("no face has an area to draw points from");
  return Array.from({length: count}, () => {
    const wanted = random() * total;
    let low = 0,
      high = faces.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle] > wanted) high = middle;
      else low = middle + 1;
    }
    let across = random(),
      along = random();
    if (across + along > 1) [across, along] = [1 - across, 1 - along];
    const [a, b, c] = faces[low].map(corner => vertices[corner]);
    return a.map((value, i) => value + across * (b[i] - value) + along * (c[i] - value));
  });
}

function inUnitSphere(rows) {
  // the mean at the origin, the farthest point at distance 1
  const mean = [0, 1, 2].map(i => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
  const centred = rows.map(row => mean.map((value, i) => row[i] - value));
  const radius = Math.max(...centred.map(row => Math.hypot(...row)));
  if (!(radius > 0 && radius < Infinity)) throw new Error("all its points are one");
  return Float32Array.from(centred.flat(), value => value / radius);
}

function strayPoints(points) {
  // x y z of a cloud -> a sentence where a few points are far from all others, as points/frame.py has it, or ""
  const rows = [...new Map(rowsOfThree(points).map(row => [row.join(), row])).values()],
    middle = [0, 1, 2].map(i => median(rowsOfThree(points).map(row => row[i]))),
    far = rows.map(row => Math.hypot(...row.map((v, i) => v - middle[i]))).sort((a, b) => a - b),
    most = Math.max(1, Math.floor(STRAY_SHARE * far.length)),
    last = far.slice(-most - 1),
    at = last.findIndex((distance, i) => last[i + 1] > STRAY_GAP * distance);
  if (at < 0 || !last[at]) return "";
  const strays = last.length - 1 - at,
    times = (last[last.length - 1] / last[at]).toFixed(1),
    [are, set, reach] = strays === 1 ? ["is", "sets", ""] : ["are", "set", "up to "];
  return (
    `${strays} of ${count(far.length, "point")} ${are} ${reach}${times} times as far out as all others ` +
    `and ${set} the scale.`
  );
}

function median(values) {
  const sorted = values.sort((a, b) => a - b),
    half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

const rowsOfThree = flat => Array.from({length: flat.length / 3}, (_, n) => Array.from(flat.slice(3 * n, 3 * n + 3)));
const textOf = buffer => new TextDecoder().decode(buffer).replace(/^\ufeff/, "");
const rowsOf = text =>
  text
    .split(/\r\n|\r|\n/)
    .map(line => line.split("#")[0].trim())
    .filter(line => line);
const fan = corners => corners.slice(2).map((_, i) => [corners[0], corners[i + 1], corners[i + 2]]);

function readOFF(buffer) {
  const words = rowsOf(textOf(buffer))
    .join("\n")
    .match(/^(?:ST|C|N)*OFF\s*(\d+)\s+(\d+)[^\n]*\n([^]*)$/i);
  if (!words) throw new Error("it does not begin with OFF and its numbers of vertices and faces");
  const lines = words[3].split("\n").map(line => line.split(/\s+/).map(Number)),
    count = +words[1];
  if (lines.length < count + +words[2]) throw new Error("it ends before its last face");
  const faces = lines.slice(count, count + +words[2]).flatMap(row => fan(row.slice(1, 1 + row[0])));
  return {vertices: lines.slice(0, count).map(row => row.slice(0, 3)), faces};
}

function readOBJ(buffer) {
  const vertices = [],
    faces = [];
  for (const line of rowsOf(textOf(buffer).replace(/\\\r?\n/g, " "))) {
    // a backslash continues a line
    const [kind, ...words] = line.split(/\s+/);
    if (kind === "v") vertices.push(words.slice(0, 3).map(Number));
    if (kind === "f") {
      // counted from 1, or from the last one backwards
      const corners = words.map(word => parseInt(word)).map(i => (i < 0 ? vertices.length + i : i - 1));
      faces.push(...fan(corners));
    }
  }
  return {vertices, faces};
}

function readXYZ(buffer) {
  // rows of numbers; a row of words, as a heading is, is passed over
  const rows = rowsOf(textOf(buffer)).map(line => line.split(/[\s,;]+/).map(Number));
  return {
    vertices: rows.filter(row => row.length >= 3 && !row.some(Number.isNaN)).map(row => row.slice(0, 3)),
    faces: [],
  };
}

function readSTL(buffer) {
  const view = new DataView(buffer),
    count = buffer.byteLength >= 84 ? view.getUint32(80, true) : -1;
  let vertices = [];
  if (count > 0 && buffer.byteLength >= 84 + 50 * count) {
    for (let f = 0; f < count; f++)
      for (let v = 0; v < 3; v++)
        vertices.push([0, 4, 8].map(i => view.getFloat32(84 + 50 * f + 12 + 12 * v + i, true)));
  } else {
    vertices = rowsOf(textOf(buffer))
      .filter(line => /^vertex\s/i.test(line))
      .map(line => line.split(/\s+/).slice(1, 4).map(Number));
  }
  return {
    vertices,
    faces: Array.from({length: Math.floor(vertices.length / 3)}, (_, f) => [3 * f, 3 * f + 1, 3 * f + 2]),
  };
}

const PLY_TYPES = {
  char: [1, "Int8"],
  uchar: [1, "Uint8"],
  short: [2, "Int16"],
  ushort: [2, "Uint16"],
  int: [4, "Int32"],
  uint: [4, "Uint32"],
  float: [4, "Float32"],
  double: [8, "Float64"],
};
for (const [alias, name] of Object.entries({
  int8: "char",
  uint8: "uchar",
  int16: "short",
  uint16: "ushort",
  int32: "int",
  uint32: "uint",
  float32: "float",
  float64: "double",
}))
  PLY_TYPES[alias] = PLY_TYPES[name];

function plyHeader(buffer) {
  const start = new TextDecoder("latin1").decode(buffer.slice(0, 65536)),
    match = start.match(/^ply\r?\n[^]*?\nend_header\r?\n/);
  if (!match) throw new Error("it does not begin with the header of a PLY");
  const elements = [];
  let format = "";
  for (const line of match[0].split(/\r?\n/)) {
    const words = line.trim().split(/\s+/);
    if (words[0] === "format") format = words[1];
    if (words[0] === "element") elements.push({name: words[1], count: +words[2], properties: []});
    if (words[0] === "property" && elements.length) {
      const list = words[1] === "list",
        types = list ? words.slice(2, 4) : [words[1]];
      const unknown = types.find(type => !PLY_TYPES[type]);
      if (unknown) throw new Error(`its header names a type ${unknown}`);
      elements[elements.length - 1].properties.push({name: words[words.length - 1], list, types});
    }
  }
  if (!/^(ascii|binary_(little|big)_endian)$/.test(format)) throw new Error(`its header names a format ${format}`);
  return {format, elements: elements.filter(each => each.properties.length), length: match[0].length};
}

function readPLY(buffer) {
  const {format, elements, length} = plyHeader(buffer),
    found = {vertices: [], faces: []};
  const next =
    format === "ascii" ? plyWords(buffer, length) : plyNumbers(buffer, length, format === "binary_little_endian");
  for (const {name, count, properties} of elements)
    for (let row = 0; row < count; row++) {
      const values = {};
      for (const {name, list, types} of properties)
        values[name] = list ? Array.from({length: next(types[0])}, () => next(types[1])) : next(types[0]);
      if (name === "vertex") found.vertices.push([values.x, values.y, values.z]);
      if (name === "face") found.faces.push(...fan(values.vertex_indices || values.vertex_index || []));
    }
  return found;
}

function plyWords(buffer, start) {
  // a function that gives the next number
  const words = textOf(buffer.slice(start)).trim().split(/\s+/);
  let at = 0;
  return () => {
    if (at >= words.length) throw new Error("it ends before its last element");
    return Number(words[at++]);
  };
}

function plyNumbers(buffer, start, little) {
  const view = new DataView(buffer);
  let at = start;
  return type => {
    const [size, name] = PLY_TYPES[type];
    if (at + size > buffer.byteLength) throw new Error("it ends before its last element");
    at += size;
    return view[`get${name}`](at - size, little);
  };
}
