"""Draws the figures of docs/shared_mlp.md: python -m tools.figures

Blue is input, orange is learned, green is output.
"""

from pathlib import Path

from tools.drawing import FAINT, INK, ORANGE, Colour, Drawing

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
BLUE, GREEN = ("#4a7fb5", "#dbe8f6"), ("#3c8f4a", "#d9f0d9")
CHANNELS = [("#c4483c", "#f6c9c4"), ("#3c8f4a", "#cdebc9"), ("#3f6fb0", "#c8dbf5")]  # red, green, blue
RED = "#c4483c"
SEVEN = ["0000000", "0111110", "0000010", "0000100", "0001000", "0001000", "0000000"]  # the digit, as pixels


def seven(i: int, j: int) -> Colour:
    return BLUE[0], BLUE[0] if SEVEN[i][j] == "1" else BLUE[1]


def stack(
    drawing: Drawing, x: float, y: float, rows: int, columns: int, cell: float, colours: list[Colour], shift: float = 9
) -> None:
    """Draws maps one behind the other, the first in front at (x, y)."""
    for k in reversed(range(len(colours))):
        drawing.grid(x + k * shift, y - k * shift, rows, columns, cell, colours[k])


def frame(drawing: Drawing, x: float, y: float, w: float, h: float, depth: int = 1, shift: float = 9) -> None:
    """Draws the frame of a patch through all maps of a stack."""
    across = (depth - 1) * shift
    if across:
        for corner_x, corner_y in ((x, y), (x + w, y), (x + w, y + h)):
            drawing.line(corner_x, corner_y, corner_x + across, corner_y - across, ORANGE[0], 2)
        drawing.line(x + across, y - across, x + w + across, y - across, ORANGE[0], 2)
        drawing.line(x + w + across, y - across, x + w + across, y + h - across, ORANGE[0], 2)
    drawing.box(x, y, w, h, (ORANGE[0], "none"), 3)


def kernels() -> None:
    drawing = Drawing(960, 350, "A kernel says how much one Linear sees: a pixel, a patch, or everything")
    panels = [
        (1, "kernel 1×1", "sees one pixel at a time", "PointNet: one point", 7, [(1, 1), (4, 5)]),
        (3, "kernel 3×3", "sees a patch at a time", "an ordinary convolution", 5, [(0, 0), (3, 4)]),
        (7, "kernel as large as the image", "sees everything at once", "a fully connected layer", 1, [(0, 0)]),
    ]
    for k, (size, name, sees, known_as, out, corners) in enumerate(panels):
        left, top, right = 20 + 320 * k, 76, 20 + 320 * k + 150 + 8 * (7 - out)
        end = top + 8 * (7 - out)
        drawing.text(left + 140, 30, name, 16, bold=True)
        stack(drawing, left, top, 7, 7, 16, CHANNELS, 6)
        stack(drawing, right, end, out, out, 16, [GREEN] * 4, 6)
        for i, j in corners:
            frame(drawing, left + 16 * j, top + 16 * i, 16 * size, 16 * size, 3, 6)
            drawing.line(left + 16 * j + 8 * size, top + 16 * (i + size), left + 100, 226, ORANGE[0], 1.5, "4 3")
            drawing.box(right + 16 * j, end + 16 * i, 16, 16, (GREEN[0], GREEN[0]))
            drawing.line(left + 180, 226, right + 16 * j + 8, end + 16 * i + 16, GREEN[0], 1.5, "4 3")
        drawing.layer(left + 140, 248, f"Linear {3 * size * size} → D", 150)
        drawing.text(left + 140, 300, sees, 15)
        drawing.text(left + 140, 322, known_as, 14, colour=FAINT)
    drawing.save(FOLDER / "kernels.svg")


def cloud() -> None:
    drawing = Drawing(880, 470, "Two points, one network, a max; with one filter, one number per point")
    columns = [(1, 0, 2), (0, 3, 1)]
    drawing.text(96, 34, "2 points, 3 channels", 15, bold=True)
    drawing.text(340, 34, "the same Linear 3 → 2", 15, bold=True)
    drawing.text(586, 34, "2 maps, after ReLU", 15, bold=True)
    drawing.text(786, 34, "max over points", 15, bold=True)
    for n, (point, values) in enumerate(zip(columns, [("1", "0"), ("0", "3")], strict=True)):
        y = 66 + 104 * n
        drawing.text(52, y + 25, f"point {n + 1}", 13, "end", FAINT)
        for k in range(3):
            drawing.box(62 + 36 * k, y + 2, 36, 36, CHANNELS[k], 1.5)
            drawing.text(80 + 36 * k, y + 26, str(point[k]), 16)
            drawing.text(80 + 36 * k, y - 4, "xyz"[k], 12, colour=FAINT)
        drawing.arrow(178, y + 20, 266, y + 20)
        drawing.layer(340, y + 20, "W p + b", 136, 44)
        drawing.arrow(412, y + 20, 540, y + 20)
        for d, value in enumerate(values):
            won = (n, d) in ((0, 0), (1, 1))
            drawing.box(550 + 36 * d, y + 2, 36, 36, (GREEN[0], GREEN[0] if won else GREEN[1]), 1.5)
            drawing.text(568 + 36 * d, y + 26, value, 16, colour="#ffffff" if won else INK, bold=won)
        drawing.arrow(632, y + 20, 736, 138 + 8 * (2 * n - 1))
    drawing.line(340, 110, 340, 166, ORANGE[0], 2, "5 4")
    drawing.text(330, 142, "the same 6 weights", 12, "end", ORANGE[0], True)
    drawing.text(350, 142, "and 2 biases", 12, "start", ORANGE[0], True)
    for d, value in enumerate(("1", "3")):
        drawing.box(750 + 36 * d, 120, 36, 36, (GREEN[0], GREEN[0]), 1.5)
        drawing.text(768 + 36 * d, 144, value, 16, colour="#ffffff", bold=True)
    drawing.text(786, 180, "one row for the cloud,", 12)
    drawing.text(786, 197, "in any order of its points", 12)
    one_filter(drawing, 250)
    drawing.save(FOLDER / "cloud.svg")


def one_filter(drawing: Drawing, top: float) -> None:
    """Draws the case D = 1: a window one point wide, over a row of points, gives one map."""
    drawing.line(20, top, 860, top, "#d5d9dd", 1)
    drawing.text(24, top + 32, "D = 1: one filter, one number per point", 15, "start", bold=True)
    for k in range(3):
        drawing.grid(62, top + 56 + 24 * k, 1, 12, 24, CHANNELS[k])
        drawing.text(52, top + 73 + 24 * k, "xyz"[k], 13, "end")
    frame(drawing, 62 + 24 * 4, top + 56, 24, 72)
    drawing.text(206, top + 150, "points →   the window is one point wide", 12, colour=FAINT)
    drawing.arrow(360, top + 92, 412, top + 92)
    drawing.layer(484, top + 92, "3 weights", 124, 40)
    drawing.text(484, top + 134, "Conv1d(3, 1, 1)", 12, colour=FAINT)
    drawing.arrow(550, top + 92, 556 + 6, top + 92)
    drawing.grid(572, top + 80, 1, 12, 24, GREEN)
    drawing.box(572 + 24 * 4, top + 80, 24, 24, (GREEN[0], GREEN[0]), 2)
    drawing.text(716, top + 134, "one map: N numbers", 13)
    drawing.caption(top + 196, "D filters give D such maps. Each is 3 weights and a bias, for any number of points.")


def fully_connected() -> None:
    drawing = Drawing(820, 350, "A fully connected layer: every output is a weighted sum of every pixel")
    drawing.grid(30, 100, 7, 7, 18, seven)
    drawing.text(93, 60, "28×28 pixels", 15, bold=True)
    drawing.text(93, 80, "(drawn as 7×7)", 12, colour=FAINT)
    drawing.arrow(164, 163, 210, 163)
    drawing.text(187, 150, "flatten", 13)
    ys = [60 + 22 * i for i in range(11)]
    shown = [6, 7, 8, 9, 10, 0, 36, 37, 38, 39, 40]  # of the 49; the sixth is drawn as dots
    outs = [104, 170, 236]
    for target in (outs[0], outs[2]):
        for i, y in enumerate(ys):
            if i != 5:
                drawing.line(268, y + 9, 520, target, "#d5d9dd", 1)
    for i, y in enumerate(ys):
        if i != 5:
            drawing.line(268, y + 9, 520, outs[1], ORANGE[0], 1.8)
    for i, y in enumerate(ys):
        if i == 5:
            drawing.text(254, y + 15, "⋮", 18)
            continue
        drawing.box(240, y, 28, 19, seven(*divmod(shown[i], 7)))
        drawing.text(235, y + 14, f"{shown[i] + 1}", 11, "end", FAINT)
    drawing.text(254, 330, "784 inputs x", 14)
    for target, name in zip(outs, ("y₁", "y₂", "y₇₈₄"), strict=True):
        drawing.box(520, target - 16, 46, 32, (GREEN[0], GREEN[1]), 2 if target == outs[1] else 1, 16)
        drawing.text(543, target + 5, name, 14)
    drawing.text(543, 207, "⋮", 18)
    drawing.text(543, 330, "784 outputs y", 14)
    drawing.text(600, 110, "y₂ has a weight of its own", 14, "start", ORANGE[0], True)
    drawing.text(600, 130, "for each of the 784 pixels:", 14, "start", ORANGE[0], True)
    drawing.text(600, 156, "y₂ = Σ w₂ᵢ xᵢ + b₂", 15, "start")
    drawing.text(600, 206, "784 outputs × 784 weights", 14, "start")
    drawing.text(600, 228, f"= {784 * 784:,} weights", 15, "start", bold=True)
    drawing.save(FOLDER / "fully_connected.svg")


def patches() -> None:
    drawing = Drawing(900, 350, "A 3×3 convolution: the same small network on every patch, all channels at once")
    drawing.text(130, 34, "image, 3 channels", 15, bold=True)
    stack(drawing, 30, 110, 8, 8, 20, CHANNELS, 12)
    frame(drawing, 50, 130, 60, 60, 3, 12)
    frame(drawing, 110, 210, 60, 60, 3, 12)
    drawing.text(80, 166, "A", 15, bold=True)
    drawing.text(140, 246, "B", 15, bold=True)
    for y, name in ((120, "A"), (250, "B")):
        drawing.text(338, y - 40, f"patch {name}: 3·3·3 = 27 numbers", 13)
        for k in range(3):
            drawing.grid(280 + 40 * k, y - 28, 3, 3, 12, CHANNELS[k])
        drawing.arrow(402, y - 10, 446, y - 10)
        drawing.layer(524, y - 10, "Linear 27 → 128", 150)
        drawing.arrow(602, y - 10, 684, y - 10)
    drawing.line(524, 134, 524, 216, ORANGE[0], 2, "5 4")
    drawing.text(514, 160, "one and the same:", 13, "end", ORANGE[0], True)
    drawing.text(514, 180, f"3·3·3·128 = {27 * 128:,} weights", 13, "end", ORANGE[0], True)
    drawing.text(782, 34, "128 maps", 15, bold=True)
    stack(drawing, 700, 130, 6, 6, 20, [GREEN] * 4, 10)
    for column, row, name in ((1, 1, "A"), (4, 5, "B")):
        drawing.box(700 + 20 * column, 130 + 20 * row, 20, 20, (GREEN[0], GREEN[0]), 2)
        frame(drawing, 700 + 20 * column, 130 + 20 * row, 20, 20, 4, 10)
        drawing.text(710 + 20 * column, 145 + 20 * row, name, 13, colour="#ffffff", bold=True)
    drawing.caption(
        322,
        "Each of the 128 outputs is a weighted sum of all 27 numbers: one filter gives one map, whatever the channels.",
    )
    drawing.save(FOLDER / "patches.svg")


def full_kernel() -> None:
    drawing = Drawing(860, 330, "A kernel as large as the image has one place to be: a fully connected layer")
    drawing.text(105, 40, "image, 28×28×1", 15, bold=True)
    drawing.grid(30, 90, 7, 7, 21, seven)
    frame(drawing, 30, 90, 147, 147)
    drawing.text(105, 268, "the kernel covers it all:", 13)
    drawing.text(105, 286, "there is nowhere to slide", 13)
    drawing.text(380, 40, "784 filters, each 28×28", 15, bold=True)
    shades = ["#ffe6c4", "#f7c98e", "#eeab5c", "#fff3e0"]
    for k in reversed(range(4)):
        drawing.grid(
            292 + 16 * k, 100 - 12 * k, 7, 7, 21, lambda i, j, k=k: (ORANGE[0], shades[(3 * i + 5 * j + i * j + k) % 4])
        )
    drawing.text(380, 268, "the weights of one output,", 13)
    drawing.text(380, 286, "laid out as a picture", 13)
    drawing.text(234, 172, "×", 26)
    drawing.arrow(506, 163, 576, 163)
    drawing.text(690, 40, "784 maps of 1×1", 15, bold=True)
    for k in reversed(range(9)):
        drawing.box(600 + 19 * k, 190 - 10 * k, 26, 26, GREEN, 1.2)
    drawing.text(690, 268, "one number per filter:", 13)
    drawing.text(690, 286, "y₁ … y₇₈₄ again", 13)
    drawing.text(
        430,
        316,
        f"784 filters × 28·28 weights = {784 * 784:,}, the very numbers of the fully connected layer",
        14,
        bold=True,
    )
    drawing.save(FOLDER / "full_kernel.svg")


def sliding_classifier() -> None:
    drawing = Drawing(860, 300, "A classifier of small images, slid over a larger one, gives a map of scores")
    drawing.text(150, 34, "a larger image", 15, bold=True)
    offset = {(r, c) for r in range(7) for c in range(7) if SEVEN[r][c] == "1"}
    drawing.grid(30, 56, 11, 13, 18, lambda i, j: (BLUE[0], BLUE[0] if (i - 2, j - 4) in offset else BLUE[1]))
    drawing.box(30, 56, 126, 126, ("#8a949d", "none"), 3)
    drawing.box(30 + 4 * 18, 56 + 2 * 18, 126, 126, (ORANGE[0], "none"), 3)
    drawing.arrow(272, 155, 318, 155)
    drawing.box(326, 92, 206, 126, ("#e3e6e9", "#f8f9fa"), 1, 8)
    drawing.text(429, 82, "the dense classifier, respelled", 13)
    drawing.layer(429, 122, "kernel of crop size", 176, 36)
    drawing.text(429, 159, "ReLU", 13)
    drawing.layer(429, 188, "kernel 1×1", 176, 36)
    drawing.arrow(540, 155, 588, 155)
    drawing.text(690, 34, "its scores, one per crop", 15, bold=True)
    strength = {(2, 4): "#3c8f4a", (2, 3): "#8cc794", (2, 5): "#8cc794", (1, 4): "#8cc794", (3, 4): "#8cc794"}
    drawing.grid(608, 90, 5, 7, 24, lambda i, j: (GREEN[0], strength.get((i, j), GREEN[1])))
    drawing.box(608, 90, 24, 24, ("#8a949d", "none"), 3)
    drawing.box(608 + 4 * 24, 90 + 2 * 24, 24, 24, (ORANGE[0], "none"), 3)
    drawing.text(690, 240, "grey crop → grey score, orange → orange:", 12.5)
    drawing.text(690, 258, "equal to cropping and classifying each,", 12.5)
    drawing.text(690, 276, "in a single pass", 12.5)
    drawing.save(FOLDER / "sliding_classifier.svg")


def pointwise() -> None:
    drawing = Drawing(860, 330, "A 1×1 convolution: the same Linear on each pixel's channels; pixels never meet")
    drawing.text(120, 34, "image, 3 channels", 15, bold=True)
    stack(drawing, 30, 110, 7, 7, 22, CHANNELS, 14)
    frame(drawing, 52, 132, 22, 22, 3, 14)
    frame(drawing, 140, 220, 22, 22, 3, 14)
    for y in (110, 240):
        for k in range(3):
            drawing.box(272, y - 36 + 22 * k, 22, 22, CHANNELS[k], 1.5)
        drawing.arrow(304, y - 4, 352, y - 4)
        drawing.layer(420, y - 4, "Linear 3 → D", 128)
        drawing.arrow(490, y - 4, 538, y - 4)
        for k in range(5):
            drawing.box(550, y - 52 + 20 * k, 22, 20, GREEN, 1.5)
    drawing.line(100, 128, 266, 106, ORANGE[0], 1.2, "4 3")
    drawing.line(192, 214, 266, 234, ORANGE[0], 1.2, "4 3")
    drawing.line(420, 130, 420, 212, ORANGE[0], 2, "5 4")
    drawing.text(410, 176, "the same 3·D", 13, "end", ORANGE[0], True)
    drawing.text(430, 176, "weights", 13, "start", ORANGE[0], True)
    drawing.text(720, 34, "D maps, same pixels", 15, bold=True)
    stack(drawing, 630, 124, 7, 7, 22, [GREEN] * 5, 10)
    frame(drawing, 652, 146, 22, 22, 5, 10)
    frame(drawing, 740, 234, 22, 22, 5, 10)
    drawing.line(578, 106, 650, 150, GREEN[0], 1.2, "4 3")
    drawing.line(578, 236, 738, 244, GREEN[0], 1.2, "4 3")
    drawing.caption(
        310,
        "Depth changes from 3 to D. No pixel sees another: reorder the pixels, and the results are reordered.",
    )
    drawing.save(FOLDER / "pointwise.svg")


def class_maps() -> None:
    drawing = Drawing(920, 320, "Ten filters: a map for each class, a classifier on every pixel")
    drawing.text(115, 34, "image", 15, bold=True)
    stack(drawing, 30, 100, 7, 7, 22, CHANNELS, 8)
    frame(drawing, 96, 144, 22, 22, 3, 8)
    drawing.arrow(212, 170, 250, 170)
    drawing.layer(330, 170, "Conv 1×1, 3 → 10", 148)
    drawing.text(330, 216, "10 · 3 = 30 weights", 13, colour=ORANGE[0], bold=True)
    drawing.arrow(410, 170, 448, 170)
    drawing.text(550, 34, "10 class maps", 15, bold=True)
    stack(drawing, 460, 136, 7, 7, 20, [GREEN] * 10, 8)
    frame(drawing, 520, 176, 20, 20, 10, 8)
    drawing.line(614, 116, 692, 140, ORANGE[0], 1.2, "4 3")
    drawing.text(800, 34, "that pixel's 10 scores", 15, bold=True)
    lengths = [22, 40, 12, 30, 96, 18, 44, 26, 10, 34]
    for k, length in enumerate(lengths):
        drawing.box(752, 62 + 20 * k, length, 15, (GREEN[0], GREEN[0] if k == 4 else GREEN[1]))
        drawing.text(744, 74 + 20 * k, f"class {k + 1}", 12, "end")
    drawing.text(858, 154, "largest", 12, "start")
    drawing.caption(
        302,
        "The largest of the ten labels the pixel. With points for pixels: how PointNet's segmentation ends.",
    )
    drawing.save(FOLDER / "class_maps.svg")


def flatten_first() -> None:
    drawing = Drawing(
        880, 430, "Flatten first: then a 1×1 convolution is the fully connected layer; in place it is not"
    )
    drawing.text(24, 34, "Right: flatten first", 16, "start", GREEN[0], True)
    drawing.grid(40, 56, 7, 7, 15, seven)
    drawing.text(92, 180, "28×28×1", 13)
    drawing.arrow(156, 108, 214, 108)
    drawing.text(185, 96, "flatten", 13)
    for k in reversed(range(14)):
        drawing.box(232 + 7 * k, 124 - 5 * k, 15, 15, seven(*divmod(6 + k, 7)))
    drawing.text(285, 160, "one pixel with", 13)
    drawing.text(285, 178, "784 channels", 13)
    drawing.arrow(346, 108, 382, 108)
    drawing.layer(486, 108, "Conv 1×1, 784 → 784", 200)
    drawing.text(486, 160, "784 filters × 784 weights", 13)
    drawing.text(486, 178, f"= {784 * 784:,}", 13, bold=True)
    drawing.arrow(592, 108, 626, 108)
    for k in reversed(range(14)):
        drawing.box(640 + 7 * k, 124 - 5 * k, 15, 15, (GREEN[0], GREEN[1] if k % 3 else GREEN[0]))
    drawing.text(700, 160, "one pixel, 784 channels:", 13)
    drawing.text(700, 178, "each saw the whole image", 13)
    drawing.line(20, 214, 860, 214, "#d5d9dd", 1)
    drawing.text(24, 248, "Wrong: the layer swapped in place", 16, "start", RED, True)
    drawing.grid(40, 270, 7, 7, 15, seven)
    drawing.text(92, 394, "28×28×1", 13)
    drawing.arrow(164, 322, 382, 322)
    drawing.text(280, 310, "no flatten", 13, colour=RED)
    drawing.layer(486, 322, "Conv 1×1, 1 → 784", 200)
    drawing.text(486, 374, "784 filters × 1 weight", 13)
    drawing.text(486, 392, "= 784", 13, bold=True)
    drawing.arrow(592, 322, 626, 322)
    tints = [("#3c8f4a", "#d9f0d9"), ("#8cc794", "#eef8ee"), ("#22592c", "#bfe3c2")]
    for k, (dark, light) in enumerate(tints):
        drawing.grid(
            640 + 76 * k, 290, 7, 7, 9, lambda i, j, d=dark, p=light: (GREEN[0], d if SEVEN[i][j] == "1" else p)
        )
    drawing.text(750, 374, "784 copies of the picture,", 13)
    drawing.text(750, 392, "each only tinted: w·x + b", 13)
    drawing.save(FOLDER / "flatten_first.svg")


def summed_maps() -> None:
    drawing = Drawing(
        860, 400, "Summed class maps: a fully connected layer whose weights are the same at every position"
    )
    drawing.text(215, 34, "class maps, summed over space", 15, bold=True)
    drawing.text(645, 34, "an ordinary fully connected layer", 15, bold=True)
    drawing.text(215, 58, "per channel one weight, at every position", 13, colour=FAINT)
    drawing.text(645, 58, "per channel a weight for each position", 13, colour=FAINT)
    shades = ["#ffe6c4", "#f7c98e", "#eeab5c", "#fff3e0"]
    drawing.grid(150, 76, 7, 7, 18, ("#cf7a1c", "#f7c98e"))
    drawing.grid(582, 76, 7, 7, 18, lambda i, j: (ORANGE[0], shades[(3 * i + 5 * j + i * j) % 4]))
    drawing.line(430, 20, 430, 330, "#d5d9dd", 1)
    order = [(17 * k + 5) % 49 for k in range(49)]
    for left, verdict, second, colour in ((30, "y", "y", GREEN[0]), (462, "y", "another", RED)):
        drawing.grid(left + 20, 232, 7, 7, 11, seven)
        drawing.text(left + 106, 276, f"→ {verdict}", 16, "start")
        drawing.grid(left + 200, 232, 7, 7, 11, lambda i, j: seven(*divmod(order[7 * i + j], 7)))
        drawing.text(left + 286, 276, f"→ {second}", 16, "start", colour, True)
        drawing.text(left + 238, 328, "the same pixels, shuffled", 12)
    drawing.caption(364, "Left: shuffle the pixels and nothing changes. That is a tied layer: W Σx + HW·b.")
    drawing.caption(
        386,
        "Right: order matters; no summed class map can do that. Points have no order: PointNet is of the left kind.",
    )
    drawing.save(FOLDER / "summed_maps.svg")


def layouts() -> None:
    drawing = Drawing(
        900, 400, "Transpose walks the same numbers in other steps; reshape cuts them in the wrong places"
    )
    numbers = [(k, n) for k in range(3) for n in range(4)]
    drawing.text(120, 34, "3 channels, 4 pixels", 15, bold=True)
    for k, n in numbers:
        pixel(drawing, 50 + 36 * n, 60 + 36 * k, 36, k, n)
    frame(drawing, 50 + 36, 60, 36, 108)
    drawing.text(120, 194, "outlined: pixel 2", 13)
    rows = [
        (86, "transpose(1, 2): nothing moves, pixel 2 is r₂ g₂ b₂ in steps of N", numbers, [1, 5, 9], ORANGE[0]),
        (196, "reshape: nothing moves either, but “pixel 2” is now r₄ g₁ g₂", numbers, [3, 4, 5], RED),
        (306, "transpose(1, 2).contiguous(): a copy, channels last in memory", sorted(numbers, key=lambda at: at[1]),
         [3, 4, 5], ORANGE[0]),
    ]  # fmt: skip
    for y, words, cells, marked, colour in rows:
        drawing.text(290, y - 14, words, 14, "start", colour if colour == RED else INK, True)
        for at, (k, n) in enumerate(cells):
            pixel(drawing, 290 + 48 * at, y, 48, k, n, 36)
        for at in marked:
            drawing.box(290 + 48 * at + 1.5, y + 1.5, 45, 33, (colour, "none"), 3)
    drawing.text(270, 108, "in memory", 13, "end", FAINT)
    drawing.text(270, 218, "in memory", 13, "end", FAINT)
    drawing.text(270, 328, "in memory", 13, "end", FAINT)
    drawing.caption(
        382, "transpose changes the steps in which the numbers are walked; reshape keeps the order and cuts it anew."
    )
    drawing.save(FOLDER / "layouts.svg")


def pixel(drawing: Drawing, x: float, y: float, w: float, channel: int, number: int, h: float = 36) -> None:
    """One number, named after its channel and pixel."""
    drawing.box(x, y, w, h, CHANNELS[channel])
    drawing.text(x + w / 2, y + h / 2 + 5, f"{'rgb'[channel]}{'₁₂₃₄'[number]}", 14)


def spellings() -> None:
    drawing = Drawing(880, 510, "PointNet's shared MLP in four spellings, with one weight matrix")
    drawing.layer(660, 240, "W: D × 3 weights", 170, 60)
    drawing.text(660, 300, "one Linear, applied to", 13.5)
    drawing.text(660, 320, "each point (x, y, z) alike", 13.5)
    drawing.arrow(748, 240, 790, 240)
    for k in range(4):
        drawing.box(800, 200 + 20 * k, 24, 20, GREEN, 1.5)
    drawing.text(812, 300, "D numbers", 13.5)
    drawing.text(812, 320, "a point", 13.5)
    rows = [
        (70, "Conv1d, kernel 1", "(B, C, N)", "1 point wide, all 3 channels", True),
        (184, "Conv2d, kernel 1×1", "(B, C, N, 1)", "1 pixel large, all 3 channels", True),
        (318, "Conv2d, kernel 1×3", "(B, 1, N, 3)", "3 pixels wide, the only channel", False),
        (446, "Linear", "(B, N, C)", "no kernel: the last axis", False),
    ]
    for y, name, shape, sees, channels_first in rows:
        drawing.text(24, y - 4, name, 15, "start", bold=True)
        drawing.text(24, y + 18, f"on {shape}", 14, "start")
        drawing.text(24, y + 38, sees, 12, "start", FAINT)
        if channels_first:
            for k in range(3):
                drawing.grid(250, y - 30 + 20 * k, 1, 9, 20, CHANNELS[k])
                drawing.text(240, y - 15 + 20 * k, "xyz"[k], 13, "end")
            frame(drawing, 250 + 60, y - 30, 20, 60)
            drawing.text(340, y + 46, "points →", 12, colour=FAINT)
        else:
            for k in range(3):
                drawing.grid(310 + 18 * k, y - 40, 5, 1, 18, CHANNELS[k])
                drawing.text(319 + 18 * k, y - 46, "xyz"[k], 13)
            frame(drawing, 310, y - 40 + 36, 54, 18)
            drawing.text(384, y + 42, "points ↓", 12, "start", FAINT)
        from_x, from_y = (330, y) if channels_first else (364, y + 5)
        drawing.line(from_x, from_y, 572, 240 + (y - 250) * 0.12, ORANGE[0], 1.5, "4 3")
    drawing.save(FOLDER / "spellings.svg")


FIGURES = (cloud, kernels, fully_connected, patches, full_kernel, sliding_classifier, pointwise, class_maps)
FIGURES += (flatten_first, summed_maps, layouts, spellings)

if __name__ == "__main__":
    for figure in FIGURES:
        figure()
