"""A terminal as a picture: runs a command on a pseudo-terminal of a fixed size, or takes a text, and writes SVG.

    picture.py --size COLUMNSxROWS --shown 'netfront status' --out FILE.svg [--from FILE | -- COMMAND...]

ci/pictures calls it, with the library rich (which draws) in the path.
"""

import argparse
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

# As rich's own template, without its fonts from the network: a README's pictures may load nothing.
SVG = """\
<svg class="terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <title>{shown}</title>
  <style>
    .{unique_id}-matrix {{
      font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
      font-size: {char_height}px;
      line-height: {line_height}px;
    }}
    .{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
  </g>
</svg>
"""

# Light on dark, with enough contrast for either theme of a page around it.
THEME = TerminalTheme(
    (30, 34, 40),
    (220, 223, 228),
    [(97, 104, 115), (240, 113, 120), (152, 195, 121), (229, 192, 123),
     (97, 175, 239), (198, 120, 221), (86, 182, 194), (220, 223, 228)],
)


def on_a_terminal(command, columns, rows):
    """What the command writes to a terminal of this size, and to standard error on it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = dict(os.environ, TERM="xterm-256color")
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says EIO when nobody has the other end any more.
            break
        if not part:
            break
        said += part
    child.wait()
    return said.decode().replace("\r\n", "\n")


def last_screen(text):
    """Of a screen that is drawn again and again from its upper left, the last drawing; any other text as it is."""
    if "\x1b[?1049h" not in text:
        return text
    drawn = text.split("\x1b[?1049h")[1].split("\x1b[?25h")[0].split("\x1b[H")[-1]
    return drawn.replace("\x1b[K", "").replace("\x1b[J", "")


def lines_of(text, columns):
    """Its lines, broken where a terminal breaks them."""
    for line in text.rstrip("\n").split("\n"):
        styled = Text.from_ansi(line)
        yield from styled.divide(range(columns, len(styled), columns))


def picture(shown, text, columns, rows):
    console = Console(
        record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor",
        legacy_windows=False, highlight=False, markup=False, emoji=False,
    )
    prompt = Text("$ ", style="bold green") + Text(shown, style="bold")
    lines = [prompt, *lines_of(text, columns)]
    if len(lines) > rows:
        raise SystemExit(f"{shown}: {len(lines)} lines, and the terminal has {rows}")
    for line in lines:
        console.print(line, no_wrap=True, crop=False, overflow="ignore")
    name = shown.split()[1]
    svg = console.export_svg(
        title=shown, theme=THEME, code_format=SVG.replace("{shown}", shown), unique_id=name
    )
    # The ends of lines are texts of their own there, which show nothing.
    svg = re.sub(r"<text [^>]*>\n</text>", "\n", svg)
    return "\n".join(line.strip() for line in svg.splitlines() if line.strip()) + "\n"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--size", required=True, metavar="COLUMNSxROWS")
    arguments.add_argument("--shown", required=True, help="the command as it is shown")
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--from", dest="source", metavar="FILE")
    arguments.add_argument("command", nargs="*")
    given = arguments.parse_args()
    columns, rows = map(int, given.size.split("x"))
    if given.source:
        with open(given.source, encoding="utf-8") as file:
            text = file.read()
    else:
        text = last_screen(on_a_terminal(given.command, columns, rows))
    with open(given.out, "w", encoding="utf-8") as file:
        file.write(picture(given.shown, text, columns, rows))


main()
