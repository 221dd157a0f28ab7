"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { residues, names, chains, chainOf, sequence, aminoAcids } = data; // residues are numbered by chain
  const L = residues.length;
  const PRINTED = 680; // pixels across a sheet
  const PER_PIXEL = 12; // canvases get no larger than this many million pixels
  const GROUPS = {
    AVILMC: "--aliphatic", FWY: "--aromatic", GP: "--small", STNQ: "--polar", KRH: "--basic", DE: "--acidic",
  };
  const groupOf = {};
  for (const [letters, name] of Object.entries(GROUPS)) for (const letter of letters) groupOf[letter] = name;

  // whole numbers, the largest of which stands for a missing value
  function unpack({ low, high, wide, text }) {
    const raw = atob(text), bytes = wide ? 2 : 1, missing = wide ? 65535 : 255;
    const values = new Float64Array(raw.length / bytes);
    for (let k = 0; k < values.length; k++) {
      const number = wide ? raw.charCodeAt(2 * k) + 256 * raw.charCodeAt(2 * k + 1) : raw.charCodeAt(k);
      values[k] = number === missing ? NaN : low + ((high - low) * number) / (missing - 1);
    }
    return values;
  }
  // of a pair i < j, in the rows of the upper triangle one after the other
  const pair = (i, j) => i * L - (i * (i + 1)) / 2 + j - i - 1;
  const starts = chainOf.map((chain, k) => k).filter((k) => k && chainOf[k] !== chainOf[k - 1]);
  const near = (i, j) => chainOf[i] === chainOf[j] && residues[j] - residues[i] < data.separation;
  const prefix = (k) => (chains.length ? `${chains[chainOf[k]]}:` : "");
  const place = (k) => `${names[k]} (${sequence[k]})`;
  const percent = (share) => (isNaN(share) ? "none" : `${Math.round(100 * share)} %`);
  const signed = (value) => value.toFixed(2).replace("-", "\u2212");
  const short = (value) => Number(value.toPrecision(2)).toString().replace("-", "\u2212"); // as exact as it is stored

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim().split(" ").map(Number);
  }
  const mix = (from, to, share) => from.map((value, k) => Math.round(value + (to[k] - value) * share));
  const rgb = (values) => `rgb(${values.join(" ")})`;

  // A picture of cells: `columns` from left to right, in as many panels as they need, and `rows` in each.
  const plots = [];
  function plot(id, shape, draw, tell) {
    const host = document.getElementById(id);
    if (!host) return;
    const canvas = host.querySelector("canvas"), output = host.querySelector("output");
    const cursor = document.createElement("div");
    cursor.className = "cursor";
    cursor.hidden = true;
    host.append(cursor);
    let grid, cell = null;

    function render(width) {
      grid = shape(width);
      const height = grid.top + grid.panels * grid.panelHeight;
      const ratio = Math.min(window.devicePixelRatio || 1, 3, Math.sqrt((PER_PIXEL * 1e6) / (width * height)));
      canvas.width = Math.round(width * Math.max(ratio, 1));
      canvas.height = Math.round(height * Math.max(ratio, 1));
      canvas.style.aspectRatio = `${width} / ${height}`;
      const context = canvas.getContext("2d");
      context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
      context.clearRect(0, 0, width, height);
      context.font = "11px system-ui, sans-serif";
      draw(context, grid);
      if (cell) show(cell);
    }
    function show([column, row]) {
      cell = [column, row];
      const [x, y, width, height] = box(grid, column, row);
      const size = Math.max(width, 6), tall = Math.max(height, 6);
      Object.assign(cursor.style, {
        left: `${x + width / 2 - size / 2 - 1}px`, top: `${y + height / 2 - tall / 2 - 1}px`,
        width: `${size + 2}px`, height: `${tall + 2}px`,
      });
      output.textContent = tell(column, row);
      cursor.hidden = output.hidden = false;
      const right = x + width + 10, above = y > output.offsetHeight + 12;
      output.style.left = `${Math.max(0, Math.min(right, host.clientWidth - output.offsetWidth))}px`;
      output.style.top = `${above ? y - output.offsetHeight - 8 : y + height + 10}px`;
    }
    function hide() {
      cell = null;
      cursor.hidden = output.hidden = true;
    }
    function point(event) {
      const area = canvas.getBoundingClientRect();
      const found = locate(grid, event.clientX - area.left, event.clientY - area.top);
      if (found) show(found);
      else if (event.pointerType === "mouse") hide();
    }
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    canvas.addEventListener("blur", hide);
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && show(cell || grid.start));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      const [column, row] = cell || grid.start;
      const within = (value, most) => Math.max(0, Math.min(most - 1, value));
      show(cell ? [within(column + step[0], grid.columns), within(row + step[1], grid.rows)] : [column, row]);
    });
    plots.push({ host, render });
  }
  function panels({ width, columns, rows, cellWidth, cellHeight, left, top, below, start = [0, 0] }) {
    const most = cellWidth ? Math.max(1, Math.floor((width - left - 2) / cellWidth)) : columns;
    const count = Math.ceil(columns / most), per = Math.ceil(columns / count);
    const whole = (width - left - 2) / per; // what fills the page
    return {
      columns, rows, left, top, per, start, panels: count, panelHeight: rows * cellHeight + below, cellHeight,
      cellWidth: cellWidth ? Math.min(whole, 2 * cellWidth) : whole,
    };
  }
  function box(grid, column, row) {
    const panel = Math.floor(column / grid.per);
    const x = grid.left + (column % grid.per) * grid.cellWidth;
    return [x, grid.top + panel * grid.panelHeight + row * grid.cellHeight, grid.cellWidth, grid.cellHeight];
  }
  function locate(grid, x, y) {
    const panel = Math.floor((y - grid.top) / grid.panelHeight);
    const row = Math.floor((y - grid.top - panel * grid.panelHeight) / grid.cellHeight);
    const place = Math.floor((x - grid.left) / grid.cellWidth), column = panel * grid.per + place;
    const inside = panel >= 0 && row >= 0 && row < grid.rows && place >= 0 && place < grid.per && column < grid.columns;
    return inside ? [column, row] : null;
  }
  // names of chains may be long: pictures have their beginning
  const label = (k) => (chains.length ? `${chains[chainOf[k]].slice(0, 3)}:${residues[k]}` : names[k]);
  const margin = 6.5 * Math.max(0, ...residues.map((number, k) => label(k).length - 3)); // of labels over 3 signs
  // residue numbers that are multiples of a round step, and leave room for each other
  function ticks(room) {
    const least = 30 + margin;
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((each) => each * room >= least) || 1000;
    let last = -Infinity;
    return residues.map((number, k) => k).filter((k) => {
      const fits = residues[k] % step === 0 && (k - last) * room >= least;
      if (fits) last = k;
      return fits;
    });
  }
  function boundaries(context, grid, crossed = false) {
    context.strokeStyle = rgb(color("--border"));
    context.lineWidth = 1;
    context.beginPath();
    for (const k of starts) {
      const [x, y] = box(grid, k, 0), side = grid.columns * grid.cellWidth;
      context.moveTo(x, y);
      context.lineTo(x, y + grid.rows * grid.cellHeight);
      if (!crossed) continue;
      context.moveTo(grid.left, y + k * grid.cellHeight);
      context.lineTo(grid.left + side, y + k * grid.cellHeight);
    }
    context.stroke();
  }
  function number(context, text, x, y, align = "center") {
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--soft");
    context.textAlign = align;
    context.textBaseline = "middle";
    const inside = context.canvas.width / context.getTransform().a - context.measureText(text).width / 2;
    context.fillText(text, align === "center" ? Math.min(x, inside) : x, y);
  }
  function numbersBelow(context, grid, drop = 8) {
    for (const k of ticks(grid.cellWidth)) {
      const [x, y] = box(grid, k, grid.rows - 1);
      number(context, label(k), x + grid.cellWidth / 2, y + grid.cellHeight + drop);
    }
  }
  // an image of one pixel for each cell, drawn as large as the cells are
  function paint(context, columns, rows, x, y, width, height, colorOf) {
    const image = new ImageData(columns, rows);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const found = colorOf(column, row);
        if (found) image.data.set([...found, 255], 4 * (row * columns + column));
      }
    const small = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, x, y, width, height);
  }

  const { occupancy, rowIdentity } = data.alignment;
  const coverage = unpack(data.alignment.coverage), identity = unpack(data.alignment.identity);
  const shares = unpack(occupancy);
  plot(
    "alignment-plot",
    (width) => panels({ width, columns: L, rows: 1, cellHeight: 190, left: 42, top: 8, below: 18 }),
    (context, grid) => {
      const near = color("--near"), paper = color("--paper");
      const wide = L * grid.cellWidth, tall = grid.cellHeight, rows = rowIdentity.length;
      paint(context, L, rows, grid.left, grid.top, wide, tall, (column, row) =>
        mix(paper, near, shares[row * L + column] * (0.2 + 0.8 * rowIdentity[row])));
      context.strokeStyle = rgb(color("--blank"));
      context.strokeRect(grid.left, grid.top, wide, tall);
      function line(shares, ink) {
        context.beginPath();
        shares.forEach((share, k) => {
          const y = grid.top + (1 - (share || 0)) * tall;
          context.lineTo(grid.left + k * grid.cellWidth, y);
          context.lineTo(grid.left + (k + 1) * grid.cellWidth, y);
        });
        for (const [style, thickness] of [[rgb(paper), 4], [ink, 2]]) {
          context.strokeStyle = style;
          context.lineWidth = thickness;
          context.stroke();
        }
      }
      line(identity, rgb(color("--wrong")));
      line(coverage, getComputedStyle(document.documentElement).getPropertyValue("--text"));
      for (const share of [0, 0.5, 1])
        number(context, `${100 * share} %`, grid.left - 4, grid.top + (1 - share) * (tall - 8) + 4, "right");
      boundaries(context, grid);
      numbersBelow(context, grid, 9);
    },
    (column) => `Residue ${place(column)}
${percent(coverage[column])} of the rows have a residue here
${percent(identity[column])} of the others' residues are ${sequence[column]}`,
  );

  const known = data.known && unpack(data.known);
  const maps = data.maps.map((map) => ({ ...map, numbers: unpack(map.values) }));
  const states = {
    0: "not in contact in the structure", 0.5: "in contact within a chain of the structure instead",
    1: "in contact in the structure",
  };
  maps.forEach((map, which) => {
    plot(
      `map-${which}`,
      (width) => {
        const size = (width - 30 - margin) / L;
        const start = map.top.length ? [map.top[0][1], map.top[0][0]] : [0, 0];
        return panels({ width, columns: L, rows: L, cellHeight: size, left: 28 + margin, top: 2, below: 16, start });
      },
      (context, grid) => {
        const paper = color("--paper"), dark = color("--map"), gray = color("--known"), dim = color("--unknown");
        const blank = color("--blank"), uncovered = color("--uncovered"), side = L * grid.cellWidth;
        paint(context, L, L, grid.left, grid.top, side, side, (column, row) => {
          const i = Math.min(column, row), j = Math.max(column, row);
          if (near(i, j)) return paper;
          if (column > row) {
            const value = map.numbers[pair(i, j)];
            return isNaN(value) ? uncovered : mix(paper, dark, Math.max(0, Math.min(1, value / map.most)));
          }
          const state = known ? known[pair(i, j)] : 0;
          return state === 1 ? gray : isNaN(state) ? dim : paper;
        });
        context.strokeStyle = rgb(blank);
        context.lineWidth = 1;
        context.strokeRect(grid.left, grid.top, side, side);
        boundaries(context, grid, true);
        context.strokeStyle = rgb(blank);
        context.beginPath();
        context.moveTo(grid.left, grid.top);
        context.lineTo(grid.left + side, grid.top + side);
        context.stroke();
        const radius = Math.max(1.6, Math.min(4, grid.cellWidth * 0.6));
        for (const [i, j] of map.top) {
          const x = grid.left + (i + 0.5) * grid.cellWidth, y = grid.top + (j + 0.5) * grid.cellWidth;
          const state = known ? known[pair(i, j)] : null;
          context.beginPath();
          const ink = { 0: "--wrong", 0.5: "--same", 1: "--right" }[state] || "--mark";
          context.strokeStyle = context.fillStyle = rgb(color(ink));
          if (state === 0) {
            context.lineWidth = 1.3;
            for (const side of [-radius, radius]) {
              context.moveTo(x - radius, y - side);
              context.lineTo(x + radius, y + side);
            }
            context.stroke();
          } else if (state === 0.5) {
            context.moveTo(x, y - radius);
            context.lineTo(x + radius, y + radius);
            context.lineTo(x - radius, y + radius);
            context.fill();
          } else {
            context.arc(x, y, radius, 0, 2 * Math.PI);
            if (state === null || state === 1) context.fill();
            else context.stroke();
          }
        }
        numbersBelow(context, grid);
        for (const k of ticks(grid.cellWidth))
          number(context, label(k), grid.left - 4, grid.top + (k + 0.5) * grid.cellWidth, "right");
      },
      (column, row) => {
        const i = Math.min(column, row), j = Math.max(column, row);
        if (i === j) return `Residue ${place(i)}`;
        const lines = [`Residues ${place(i)} and ${place(j)}`];
        if (near(i, j)) lines.push(`Less than ${data.separation} residues apart`);
        for (const each of maps) {
          const value = each.numbers[pair(i, j)];
          lines.push(`${each.name}: ${isNaN(value) ? "in no window" : short(value)}`);
        }
        if (known) lines.push(states[known[pair(i, j)]] || "unresolved in the structure");
        return lines.join("\n");
      },
    );
  });

  // letters of any font, stretched to a box
  const outlines = {};
  function letterIn(context, letter, x, y, width, height) {
    context.font = "bold 100px monospace";
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    const found = (outlines[letter] ||= context.measureText(letter));
    const wide = found.actualBoundingBoxLeft + found.actualBoundingBoxRight;
    const tall = found.actualBoundingBoxAscent + found.actualBoundingBoxDescent;
    context.save();
    context.translate(x, y);
    context.scale(width / wide, height / tall);
    context.fillText(letter, found.actualBoundingBoxLeft, found.actualBoundingBoxAscent);
    context.restore();
  }
  const MOST = Math.log(20);
  const logos = [
    { name: "Model", shares: unpack(data.profile.model), entropy: data.profile.entropy },
    { name: "Family", shares: unpack(data.profile.family), entropy: data.profile.familyEntropy },
  ];
  plot(
    "profile-plot",
    (width) => panels({
      width, columns: L, rows: 2, cellWidth: width < 500 ? 13 : 17, cellHeight: 84, left: 22, top: 4, below: 14,
    }),
    (context, grid) => {
      for (let k = 0; k < L; k++)
        logos.forEach(({ shares, entropy }, row) => {
          const [x, y, width, height] = box(grid, k, row);
          const information = entropy[k] === null ? 0 : MOST - entropy[k];
          const letters = [...aminoAcids].map((letter, a) => [shares[20 * k + a] || 0, letter]).sort((a, b) => a[0] - b[0]);
          let bottom = y + height - 18;
          for (const [share, letter] of letters) {
            const tall = (share * information * (height - 22)) / MOST;
            bottom -= tall;
            if (tall < 0.6) continue;
            context.fillStyle = rgb(color(groupOf[letter]));
            letterIn(context, letter, x + width * 0.04, bottom, width * 0.92, tall);
          }
        });
      context.font = "11px monospace";
      for (let k = 0; k < L; k++) {
        const [x, y, width, height] = box(grid, k, 0);
        number(context, sequence[k], x + width / 2, y + height - 9);
      }
      context.font = "11px system-ui, sans-serif";
      boundaries(context, grid);
      numbersBelow(context, grid, -9);
      for (let panel = 0; panel < grid.panels; panel++)
        logos.forEach(({ name }, row) => {
          context.save();
          context.translate(9, grid.top + panel * grid.panelHeight + (row + 0.4) * grid.cellHeight);
          context.rotate(-Math.PI / 2);
          number(context, name, 0, 0);
          context.restore();
        });
    },
    (column, row) => {
      const { name, shares, entropy } = logos[row];
      const best = [...aminoAcids].map((letter, a) => [shares[20 * column + a], letter]).sort((a, b) => b[0] - a[0]);
      const some = best.slice(0, 5).filter(([share]) => share >= 0.005);
      const words = some.map(([share, letter]) => `${letter} ${share.toFixed(2)}`).join(", ") || "no residue";
      const size = entropy[column] === null ? "" : `\nEntropy ${entropy[column].toFixed(2)} nats`;
      return `Residue ${place(column)}\n${name}: ${words}${size}`;
    },
  );

  const scores = unpack(data.scores.values), order = data.scores.order;
  plot(
    "substitution-plot",
    (width) => panels({
      width, columns: L, rows: 20, cellWidth: width < 500 ? 12 : 14, cellHeight: width < 500 ? 13 : 12, left: 18, top: 4,
      below: 22,
    }),
    (context, grid) => {
      const better = color("--better"), worse = color("--worse"), neutral = color("--neutral"), blank = color("--blank");
      for (let panel = 0; panel < grid.panels; panel++) {
        const first = panel * grid.per, count = Math.min(grid.per, L - first), [x, y] = box(grid, first, 0);
        paint(context, count, 20, x, y, count * grid.cellWidth, 20 * grid.cellHeight, (column, row) => {
          const value = scores[20 * (first + column) + row];
          if (isNaN(value)) return blank;
          return mix(neutral, value < 0 ? worse : better, Math.min(1, Math.abs(value) / data.scores.most));
        });
        [...order].forEach((letter, row) => number(context, letter, 9, y + (row + 0.5) * grid.cellHeight));
      }
      context.fillStyle = rgb(color("--mark"));
      for (let k = 0; k < L; k++) {
        const row = order.indexOf(sequence[k]);
        if (row < 0) continue;
        const [x, y, width, height] = box(grid, k, row);
        context.beginPath();
        context.arc(x + width / 2, y + height / 2, 2, 0, 2 * Math.PI);
        context.fill();
      }
      boundaries(context, grid);
      numbersBelow(context, grid, 9);
    },
    (column, row) => {
      const value = scores[20 * column + row], wild = sequence[column];
      if (order[row] === wild) return `Residue ${place(column)}\nWild type`;
      const name = `${prefix(column)}${wild}${residues[column]}${order[row]}`;
      return isNaN(value) ? `${name}\nNo score` : `${name}\nScore ${signed(value)}`;
    },
  );

  function render() {
    const isPrinted = document.documentElement.classList.contains("print");
    for (const each of plots) {
      const width = isPrinted && each.host.clientWidth > PRINTED ? PRINTED : each.host.clientWidth;
      if (width) each.render(width);
    }
  }
  function print(starts) {
    document.documentElement.classList.toggle("print", starts);
    render();
  }
  let width = 0;
  new ResizeObserver(() => {
    if (document.body.clientWidth !== width && !document.documentElement.classList.contains("print")) render();
    width = document.body.clientWidth;
  }).observe(document.body);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));

  for (const button of document.querySelectorAll("button")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }
  render();
  document.documentElement.dataset.drawn = plots.length;
})();
