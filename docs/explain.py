"""Makes docs/explain.html, the page that explains shared MLPs and PointNet: `python -m docs.explain`."""

from pathlib import Path

from pointnet.pages.explain import write_explanation

PAGE = Path(__file__).with_suffix(".html")

if __name__ == "__main__":
    write_explanation(PAGE, linked=True)
    print(f"wrote {PAGE}")
