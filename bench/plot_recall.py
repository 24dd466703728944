# SPDX-License-Identifier: Apache-2.0
"""The plot of peers_graph.py: a panel a data set, recall against queries per second, as SVG without any package.

Recall is drawn as -log10(1 - recall): between 0.9 and 0.99 lies what users choose, and a linear axis squeezes it.
A line is an engine's best over all of its forms (f32, f16, quantised): settings that another one beats are left out.
"""
import math

# Okabe and Ito's colours, which most kinds of colour blindness tell apart; ours is black and thick.
LINES = (("libvecdb", "#000000"), ("hnswlib", "#d55e00"), ("faiss", "#0072b2"), ("svs", "#009e73"),
         ("usearch", "#cc79a7"), ("zvec", "#e69f00"), ("lancedb", "#56b4e9"))
WIDTH, HEIGHT, GAP_X, GAP_Y, LEFT, TOP = 380, 250, 70, 70, 62, 74
RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998)
LEAST, MOST = RECALLS[0], RECALLS[-1]


def text(x, y, words, anchor="middle", size=12, colour="#333", extra=""):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}" {extra}>{words}</text>'


def short(value):
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def curves(engines, front):
    """For each product, its front over all forms, cut to the recalls shown."""
    for product, colour in LINES:
        points = [p for engine, r in engines.items() if engine.startswith(product) for p in r["points"]]
        line = [p for p in front(points, "core_qps") if p[0] >= LEAST]
        if line:
            yield product, colour, [(min(recall, MOST), qps) for recall, qps in line]


def panel(x0, y0, name, engines, front):
    lines = list(curves(engines, front))
    values = [qps for _, _, line in lines for _, qps in line] or [1]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05

    def x(recall):
        least, most = -math.log10(1 - LEAST), -math.log10(1 - MOST)
        return x0 + WIDTH * (-math.log10(1 - recall) - least) / (most - least)

    def y(qps):
        return y0 + HEIGHT * (high - math.log10(qps)) / (high - low)

    out = [f'<rect x="{x0}" y="{y0}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
           text(x0 + WIDTH / 2, y0 - 8, name, size=14, extra='font-weight="bold"')]
    for recall in RECALLS:
        out.append(f'<path d="M{x(recall):.1f} {y0}v{HEIGHT}" stroke="#e4e4e4"/>')
        out.append(text(x(recall), y0 + HEIGHT + 15, f"{recall:g}", size=11))
    for power in range(math.floor(low), math.ceil(high) + 1):
        for step in (1, 2, 5):
            qps = step * 10 ** power
            if low <= math.log10(qps) <= high:
                out.append(f'<path d="M{x0} {y(qps):.1f}h{WIDTH}" stroke="#e4e4e4"/>')
                out.append(text(x0 - 6, y(qps) + 4, short(qps), anchor="end", size=11))
    for product, colour, line in lines:
        width = 3 if product == "libvecdb" else 1.8
        path = " ".join(f"{x(recall):.1f},{y(qps):.1f}" for recall, qps in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        out += [f'<circle cx="{x(r):.1f}" cy="{y(q):.1f}" r="{width:.1f}" fill="{colour}"/>' for r, q in line]
    return out


def write(path, results, front):
    columns, rows = 2, (len(results) + 1) // 2
    width = LEFT + columns * (WIDTH + GAP_X) - GAP_X + 20
    height = TOP + rows * (HEIGHT + GAP_Y) - GAP_Y + 46
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'font-family="system-ui, sans-serif">'
           '<!-- SPDX-License-Identifier: Apache-2.0; written by bench/plot_recall.py -->',
           f'<rect width="{width}" height="{height}" fill="#fff"/>',
           text(LEFT, 20, "Queries per second (up is better) at recall@10 (right is better); "
                "one thread, one query a call", anchor="start", size=14)]
    drawn = {engine for engines in results.values() for engine, r in engines.items() if r["points"]}
    shown = [p for p in LINES if any(engine.startswith(p[0]) for engine in drawn)]
    for i, (product, colour) in enumerate(shown):
        left = LEFT + i * (width - LEFT) / len(LINES)
        out.append(f'<path d="M{left:.0f} 40h22" stroke="{colour}" stroke-width="{3 if i == 0 else 2}"/>')
        out.append(text(left + 27, 44, product, anchor="start"))
    for i, (name, engines) in enumerate(results.items()):
        out += panel(LEFT + i % columns * (WIDTH + GAP_X), TOP + i // columns * (HEIGHT + GAP_Y), name, engines, front)
    out.append(text(width / 2, height - 8, "recall@10"))
    path.write_text("\n".join([*out, "</svg>"]) + "\n", encoding="utf-8")
