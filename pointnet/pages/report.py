"""A trained classifier as one page that any browser shows offline: `python -m pointnet report`."""

from pathlib import Path

from pointnet.devices import find_device
from pointnet.evaluation.analysis import analyse
from pointnet.files import AnyPath

from .report_data import Report, evaluation_data, read_run
from .report_sections import sections
from .viewer import write_html


def write_report(
    run: AnyPath, out: AnyPath | None = None, root: AnyPath | None = None, device: str = "auto", download: bool = False
) -> Report:
    """Evaluates a trained run and writes `out/index.html`, one page that requests nothing.

    Where its data set is not there, the page shows the rest and says why.

    Args:
        run: a run folder, or one of several seeds; then the page is of the first, with the accuracies of all.
        out: the folder of the page; None: `report` in the run's own.
        root: the folder the data set is in; None: where it was in training.
        device: as `find_device` takes it.
        download: download the data set where it is missing and allowed.

    Raises:
        ValueError: the folder holds no run, or a damaged one, or there is no such device.
        OSError: the page cannot be written.
    """
    chosen, found = find_device(device), read_run(run)
    page = Path(Path(run) / "report" if out is None else out) / "index.html"
    try:
        split, data = evaluation_data(found, root, download)
    except (ValueError, OSError) as error:
        report = Report(page, found, "", None, str(error))
    else:
        report = Report(page, found, split, analyse(found.model, data, chosen), "")
    contents = sections(report, chosen)
    anchors = {heading: heading.lower().replace(" ", "-") for heading in contents}
    links = "".join(f'<a href="#{anchor}">{heading}</a>' for heading, anchor in anchors.items())
    parts = (f'<section id="{anchors[name]}"><h2>{name}</h2>{content}</section>' for name, content in contents.items())
    body = f'<main><nav aria-label="sections">{links}</nav>{"".join(parts)}</main>'
    path, config, model, seeds = found.path.resolve(), found.config, found.model, len(found.seeds)
    title = path.name if seeds < 2 else f"{path.parent.name}, seed {config.seed} of {seeds} seeds"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    points = f"{config.num_points:,} points per cloud{', with normals' if config.normals else ''}"
    notes = f"PointNet, {parameters:,} parameters, on {config.dataset}: {len(model.classes)} classes, {points}"
    write_html(page, title, notes, body)
    return report
