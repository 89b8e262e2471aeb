// The token inspector: a picture, the tokens of a stage, and the tree of merges that a token belongs to.
// The page contains the data (pipelines/visualization/token_inspection.py) and one element for each part (parts.html.j2).
"use strict";

(() => {
  const CELL = 4; // pixels along each side of a cell of the first stage's grid
  const root = document.querySelector(".inspector");
  const data = JSON.parse(document.getElementById("inspector-data").textContent);
  const part = name => root.querySelector(`[data-part="${name}"]`);
  const photo = part("photo"), tree = part("tree"), facts = part("facts"), choice = part("picture");
  const stageButtons = [...root.querySelectorAll('input[type="radio"]')];

  let picture; // the shown one, decoded
  let stage = Math.max(stageButtons.findIndex(button => button.checked), 0); // index of the stage whose tokens are shown: the row of the tree with the chosen token
  let cell = 0; // the chosen cell: the chosen token is the one that contains it
  let pinned = false; // whether a pointer that moves over the picture chooses tokens

  // ---------------------------------------------------------------- data

  function array(text, Type) {
    if (text === null) return null;
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    return new Type(bytes.buffer);
  }

  function decode(raw) {
    const [rows, columns] = raw.grid;
    const stages = raw.stages.map(entry => {
      const cells = array(entry.cells, Uint16Array);
      const members = Array.from({length: entry.tokens}, () => []);
      cells.forEach((token, index) => members[token]?.push(index));
      return {
        cells, members,
        importance: array(entry.importance, Float32Array),
        density: array(entry.density, Float32Array),
      };
    });
    return {label: raw.label, rows, columns, stages, image: null, colours: null, width: 0, height: 0};
  }

  const tokenAt = (level, index) => picture.stages[level].cells[index];
  const cellsOf = (level, index) => picture.stages[level].members[tokenAt(level, index)];

  // A cell of each token of the stage below that a token was merged from: these are its children in the tree.
  function children(level, index) {
    const seen = new Set(), found = [];
    for (const member of cellsOf(level, index)) {
      const token = tokenAt(level - 1, member);
      if (!seen.has(token)) {
        seen.add(token);
        found.push(member);
      }
    }
    return found.sort((a, b) => cellsOf(level - 1, b).length - cellsOf(level - 1, a).length || a - b);
  }

  function meanColours(image) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.columns, picture.rows];
    const context = canvas.getContext("2d");
    for (let row = 0; row < picture.rows; row++) {
      for (let column = 0; column < picture.columns; column++) {
        context.drawImage(image, column * CELL, row * CELL, CELL, CELL, column, row, 1, 1);
      }
    }
    return context.getImageData(0, 0, picture.columns, picture.rows).data;
  }

  function colourOf(members) {
    const sum = [0, 0, 0];
    for (const index of members) for (let c = 0; c < 3; c++) sum[c] += picture.colours[4 * index + c];
    return `rgb(${sum.map(value => Math.round(value / members.length)).join(" ")})`;
  }

  // ---------------------------------------------------------------- drawing

  // A canvas as wide as its place, with as many pixels as the screen has there.
  function prepare(canvas, aspect) {
    const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    const height = Math.round(width * aspect);
    canvas.style.height = `${height}px`;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return [context, width, height];
  }

  const css = name => getComputedStyle(root).getPropertyValue(name).trim();

  function drawPhoto() {
    const [context, width] = prepare(photo, picture.height / picture.width);
    const scale = width / picture.width, side = CELL * scale;
    context.imageSmoothingEnabled = false;
    context.drawImage(picture.image, 0, 0, picture.width * scale, picture.height * scale);
    const chosen = new Set(cellsOf(stage, cell));
    const {rows, columns} = picture, cells = picture.stages[stage].cells;
    context.fillStyle = "rgb(0 0 0 / 55%)";
    for (let index = 0; index < rows * columns; index++) {
      if (!chosen.has(index)) {
        const [x, y] = [index % columns, Math.floor(index / columns)];
        // Whole pixels, or seams between the cells would show.
        const left = Math.floor(x * side), top = Math.floor(y * side);
        context.fillRect(left, top, Math.floor((x + 1) * side) - left, Math.floor((y + 1) * side) - top);
      }
    }
    const lines = (differ, style, thickness) => {
      context.beginPath();
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++) {
          const index = y * columns + x;
          if (x + 1 < columns && differ(index, index + 1)) {
            context.moveTo((x + 1) * side, y * side);
            context.lineTo((x + 1) * side, (y + 1) * side);
          }
          if (y + 1 < rows && differ(index, index + columns)) {
            context.moveTo(x * side, (y + 1) * side);
            context.lineTo((x + 1) * side, (y + 1) * side);
          }
        }
      }
      [context.strokeStyle, context.lineWidth, context.lineCap] = [style, thickness, "square"];
      context.stroke();
    };
    lines((a, b) => cells[a] !== cells[b], "rgb(255 255 255 / 28%)", 1);
    lines((a, b) => chosen.has(a) !== chosen.has(b), "#ffd23d", 2.5);
  }

  // The tree as bars: each row is a stage, each bar a token, as wide as its share of the cells of the uppermost token.
  let bars = [];

  function layOut(width, rowHeight) {
    const top = picture.stages.length - 1;
    bars = [];
    const place = (level, index, x, perCell) => {
      const span = cellsOf(level, index).length * perCell;
      bars.push({level, index, x, width: span, y: (top - level) * rowHeight, height: rowHeight});
      if (level === 0) return;
      for (const child of children(level, index)) {
        place(level - 1, child, x, perCell);
        x += cellsOf(level - 1, child).length * perCell;
      }
    };
    place(top, cell, 0, width / cellsOf(top, cell).length);
  }

  function drawTree() {
    const count = picture.stages.length, label = 17;
    const [context, width, height] = prepare(tree, Math.min(0.62, 260 / Math.max(tree.clientWidth, 1)));
    const rowHeight = height / count;
    layOut(width, rowHeight);
    context.font = `11px ${css("font-family") || "sans-serif"}`;
    for (const bar of bars) {
      const gap = bar.width > 5 ? 1 : 0;
      context.fillStyle = colourOf(cellsOf(bar.level, bar.index));
      context.fillRect(bar.x, bar.y + label, Math.max(bar.width - gap, 0.5), bar.height - label - 3);
    }
    const names = ["stage 1: grid cells of 4 × 4 pixels", ...Array.from({length: count - 1}, (_, i) => `stage ${i + 2}`)];
    context.fillStyle = css("--quiet");
    for (let row = 0; row < count; row++) {
      const tokens = bars.filter(bar => bar.level === count - 1 - row).length;
      const many = tokens === 1 ? "1 token" : `${tokens} tokens`;
      context.fillText(`${names[count - 1 - row]}, ${many}`, 0, row * rowHeight + 12);
    }
    for (const bar of bars.filter(isChosen)) {
      const chosen = bar.level === stage;
      [context.strokeStyle, context.lineWidth] = chosen ? ["#d99a00", 3] : [css("--ink"), 1.25];
      const inset = context.lineWidth / 2;
      context.strokeRect(
        bar.x + inset, bar.y + label + inset, Math.max(bar.width - 2 * inset, 1), bar.height - label - 3 - 2 * inset);
    }
  }

  // Whether a bar is the chosen token or above it.
  const isChosen = bar => bar.level >= stage && tokenAt(bar.level, bar.index) === tokenAt(bar.level, cell);

  function describe() {
    const top = picture.stages.length - 1, members = cellsOf(stage, cell), token = tokenAt(stage, cell);
    const all = picture.rows * picture.columns, {importance, density} = picture.stages[stage];
    const percent = share => `${(100 * share).toPrecision(2)} %`;
    const cells = members.length === 1 ? "1 grid cell" : `${members.length} grid cells`;
    const rows = [
      ["Token", `${token + 1} of ${picture.stages[stage].members.length} of stage ${stage + 1}`],
      ["Size", `${cells}, ${members.length * CELL * CELL} pixels, ${percent(members.length / all)} of the picture`],
    ];
    if (stage > 0) rows.push(["Merged from", `${children(stage, cell).length} tokens of stage ${stage}`]);
    if (importance) {
      const siblings = children(stage + 1, cell).map(index => Math.exp(importance[tokenAt(stage, index)]));
      const share = Math.exp(importance[token]) / siblings.reduce((sum, value) => sum + value, 0);
      rows.push(["Importance", `${importance[token].toFixed(2)}; ${percent(share)} of the weight in its merge`]);
    } else {
      rows.push(["Importance", stage === top ? "none: tokens of the last stage are not merged" : "none"]);
    }
    if (density) {
      const denser = density.reduce((sum, value) => sum + (value > density[token]), 0);
      rows.push(["Density", `${density[token].toPrecision(3)}; ${denser} tokens are denser`]);
    } else if (stage < top) {
      rows.push(["Density", "none: these clusters do not depend on it"]);
    }
    facts.replaceChildren(...rows.flatMap(([name, text]) => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, value.textContent] = [name, text];
      return [term, value];
    }));
  }

  function show() {
    if (!picture?.image) return;
    drawPhoto();
    drawTree();
    describe();
    photo.classList.toggle("pinned", pinned);
  }

  // ---------------------------------------------------------------- what the reader does

  function setStage(index) {
    stage = Math.min(Math.max(index, 0), picture.stages.length - 1);
    stageButtons.forEach((button, number) => { button.checked = number === stage; });
    show();
  }

  function choose(index) {
    cell = index;
    show();
  }

  function open(number) {
    const raw = data.pictures[number], opened = decode(raw), image = new Image();
    image.onload = () => {
      picture = opened;
      [picture.image, picture.width, picture.height] = [image, image.naturalWidth, image.naturalHeight];
      picture.colours = meanColours(image);
      cell = Math.floor(picture.rows / 2) * picture.columns + Math.floor(picture.columns / 2);
      pinned = false;
      part("label").textContent = picture.label;
      root.style.setProperty("--aspect", picture.width / picture.height);
      setStage(Math.min(stage, picture.stages.length - 1));
    };
    image.src = `data:image/png;base64,${raw.image}`;
  }

  function cellUnder(event) {
    const box = photo.getBoundingClientRect();
    const within = (value, count) => Math.min(Math.max(Math.floor(value), 0), count - 1);
    const x = within((event.clientX - box.left) / box.width * picture.width / CELL, picture.columns);
    const y = within((event.clientY - box.top) / box.height * picture.height / CELL, picture.rows);
    return y * picture.columns + x;
  }

  function barUnder(event) {
    const box = tree.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    return bars.find(bar => x >= bar.x && x < bar.x + bar.width && y >= bar.y && y < bar.y + bar.height);
  }

  photo.addEventListener("pointermove", event => {
    if (picture && !pinned) choose(cellUnder(event));
  });
  photo.addEventListener("click", event => {
    if (!picture) return;
    const index = cellUnder(event);
    pinned = !(pinned && tokenAt(stage, index) === tokenAt(stage, cell));
    choose(index);
  });
  tree.addEventListener("click", event => {
    const bar = picture && barUnder(event);
    if (bar) {
      [cell, pinned] = [bar.index, true];
      setStage(bar.level);
    }
  });

  photo.addEventListener("keydown", event => {
    if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const {rows, columns} = picture, x = cell % columns, y = Math.floor(cell / columns);
    const move = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key];
    if (move) {
      pinned = true;
      choose(Math.min(Math.max(y + move[1], 0), rows - 1) * columns + Math.min(Math.max(x + move[0], 0), columns - 1));
    } else if (/^[1-9]$/.test(event.key) && Number(event.key) <= picture.stages.length) {
      setStage(Number(event.key) - 1);
    } else if (event.key === "Escape") {
      pinned = false;
      show();
    } else {
      return;
    }
    event.preventDefault();
  });

  tree.addEventListener("keydown", event => {
    if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const sideways = {ArrowLeft: -1, ArrowRight: 1}[event.key], along = {ArrowUp: 1, ArrowDown: -1}[event.key];
    if (!sideways && !along) return;
    event.preventDefault();
    pinned = true;
    if (sideways) {
      const row = bars.filter(bar => bar.level === stage);
      const at = row.findIndex(bar => tokenAt(stage, bar.index) === tokenAt(stage, cell));
      cell = row[Math.min(Math.max(at + sideways, 0), row.length - 1)].index;
    }
    setStage(stage + (along ?? 0));
  });

  stageButtons.forEach((button, number) => button.addEventListener("change", () => setStage(number)));
  choice.addEventListener("change", () => open(choice.selectedIndex));
  new ResizeObserver(show).observe(root);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  open(0);
})();
