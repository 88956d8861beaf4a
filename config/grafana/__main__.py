"""`python -m config.grafana`: write the dashboards' JSON anew."""

from config.grafana.boards import FOLDER, files


def _write() -> None:
    written = files()
    for stale in set(FOLDER.glob("*.json")) - {FOLDER / name for name in written}:
        stale.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    _write()
