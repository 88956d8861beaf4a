"""What every group of settings is, and the types that several share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _absolute(path: Path) -> Path:
    """Refuse a directory that depends on where the process was started."""
    if not path.is_absolute():
        raise ValueError(f"{path} must be an absolute path")
    return path


Text = Annotated[str, Field(min_length=1)]
Directory = Annotated[Path, AfterValidator(_absolute)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
