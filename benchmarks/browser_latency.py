"""Milliseconds from a key on a panel's slider to the new picture, in a browser with JupyterLab.

Run ``python benchmarks/browser_latency.py [01 07 ...]`` on a machine with nothing else to do. It
needs Chromium. The time begins in the page, with the key, and ends when the new picture is decoded:
kernel, messages and browser are in it. The aim is a median of 300 ms at most. Where a panel has no
slider, its first menu moves.
"""

import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parent.parent / "tests"
sys.path.append(str(TESTS))

import browser  # noqa: E402
from panel_by_keys import KEYS, PanelByKeys  # noqa: E402

MOVES, WARM = 12, 2  # the first ones also build what later moves have at hand
AIM = 300  # milliseconds
CLOCK = """panel => {
    const view = panel.lastElementChild;
    let begin, last = view.querySelector('.ft-img')?.src;
    window.ftTimes = [];
    document.addEventListener('keydown', () => { begin = performance.now(); }, true);
    new MutationObserver(() => {
        const image = view.querySelector('.ft-img');
        if (begin === undefined || !image || image.src === last) return;
        const from = begin;
        [last, begin] = [image.src, undefined];
        image.decode().then(() => window.ftTimes.push(performance.now() - from));
    }).observe(view, {subtree: true, childList: true, attributes: true});
}"""


def moves_of(panel: PanelByKeys, page, number: int) -> list[float]:
    """Move one control to and fro; return the milliseconds of each new picture."""
    panel.focus(number)
    there, back = KEYS[panel.focused()["kind"]]
    page.evaluate("() => { window.ftTimes = []; }")
    if panel.press(there) is None:  # it stands at the end
        there, back = back, there
        panel.press(there)
    for move in range(MOVES + WARM):
        panel.press((back, there)[move % 2])
    return page.evaluate("window.ftTimes")[WARM + 1 :]


def latencies(page, address: str, lesson: str) -> dict[str, list[float]]:
    """Return the milliseconds of the moves of each slider of a lesson's panel."""
    browser.open_lesson(page, address, lesson)
    page.evaluate(browser.RUN_PANEL)
    panel = PanelByKeys(page)
    panel.box.evaluate(CLOCK)
    stops = list(panel.stops())
    sliders = [n for n, stop in enumerate(stops) if stop["kind"] == "slider"]
    found = {stops[n]["name"]: moves_of(panel, page, n) for n in sliders or [0]}
    return {name: times for name, times in found.items() if times}


if __name__ == "__main__":
    wanted = sys.argv[1:] or [""]
    lessons = sorted(path.name for path in TESTS.parent.glob("notebooks/*.ipynb"))
    with TemporaryDirectory() as folder, browser.lab(Path(folder)) as address:
        for lesson in (name for name in lessons if name.startswith(tuple(wanted))):
            with browser.page(1280, 1500) as page:
                for name, times in latencies(page, address, lesson).items():
                    middle, slowest = statistics.median(times), max(times)
                    mark = "" if middle <= AIM else f"  more than {AIM}"
                    print(
                        f"{lesson[:2]} {name:24} median {middle:4.0f} ms, "
                        f"slowest {slowest:4.0f}, {len(times)} moves{mark}",
                        flush=True,
                    )
