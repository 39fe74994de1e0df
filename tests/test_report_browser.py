"""report.html in a real browser: Chromium of Debian's packages, `apt-get install chromium`.

A page around the report, of the same server, measures it in a frame of a given width.
"""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest
from pages import content, evaluation, write_run

from cam2seg.report import html_report, panels

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which(
    "google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")

FRAME = """<!doctype html><link rel="icon" href="data:,">
<iframe id="frame" style="border:0;width:WIDTHpx;height:900px"></iframe>
<pre id="said"></pre><script>
const start = performance.now()
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement
  const far = [...page.body.querySelectorAll("*")].filter(e => !e.closest(".scroll")
    && e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.tagName)
  const figure = page.querySelector(".panels figure"), widths = []
  const click = () => {
    widths.push(figure.querySelector("img").clientWidth, root.scrollWidth - root.clientWidth)
    figure.querySelector("summary").click()
  }
  click(), click(), click()
  said.textContent = JSON.stringify({width: root.clientWidth, scroll: root.scrollWidth, far,
    milliseconds: performance.now() - start, boxes: page.querySelectorAll(".scroll").length,
    widths, images: page.images.length,
    broken: [...page.images].filter(i => !i.naturalWidth).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").length,
    small: [...page.querySelectorAll("p,td,th,li,figcaption,summary")].filter(e =>
      parseFloat(frame.contentWindow.getComputedStyle(e).fontSize) < 12).length})
}
frame.src = "report.html"
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of a report with long and odd names, of the paper's number of images."""
    top = tmp_path_factory.mktemp("site")
    odd = "<script>alert(1)</script>&" + "a_long_name_without_a_space" * 4
    for n in range(5):
        title = f"{odd}{n}"
        write_run(top / title.replace("/", ""), {"method": "pixels", odd: odd}, {})
    evaluation(top / "e", odd, f"{top}/{odd.replace('/', '')}0/masks.csv", (odd, "2"))
    shown = content(top / "i", 12568, (odd, "2"), files=0)
    shown = shown._replace(sets={odd: shown.sets["a"], "b": shown.sets["a"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panels.images, "open_at", lambda path, size: np.zeros((24, 32, 3), np.uint8))
        html_report.write(top / "e", shown, {})
    for width in (380, 1280):
        (top / f"e/{width}.html").write_text(FRAME.replace("WIDTH", str(width)))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(top / "e"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def measure(address, folder):
    """What the page around the report has found, and the lines that the console has got."""
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
         "--enable-logging=stderr", "--dump-dom", address], capture_output=True, text=True,
        timeout=120)
    found, = re.findall(r'<pre id="said">(.+?)</pre>', done.stdout)
    return json.loads(found), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [380, 1280])
def test_a_browser_shows_the_page_without_an_error_or_a_sideways_scroll(site, width, tmp_path):
    for _ in range(3):  # a busy machine can be slow once
        found, errors = measure(f"{site}/{width}.html", tmp_path)
        if found["milliseconds"] < 1000:
            break
    assert found["width"] in range(width - 20, width + 1)  # a scroll bar takes some
    assert found["scroll"] == found["width"] and found["far"] == []
    assert found["milliseconds"] < 1000
    assert found["images"] > 12 and found["broken"] == 0 and found["requests"] == 0
    assert found["boxes"] > 3 and found["small"] == 0
    assert errors == []
    small, _, large, aside, again, _ = found["widths"]  # before a click, after it, after a second
    assert large > 1.8 * small and again == small and aside == 0
