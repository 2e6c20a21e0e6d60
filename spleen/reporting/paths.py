"""Text for pages that are shared: without the folders of the machine on which it was written."""

import re
from collections.abc import Iterable
from pathlib import Path

# An absolute path, of POSIX or Windows, and the part of it that is kept: the last name.
_ABSOLUTE = re.compile(
    r"(?<![\w.:/\\<…])(?:~|[A-Za-z]:)?[/\\]{1,2}(?:[^\s/\\'\"`,;:<>|()\[\]]+[/\\])*([^\s/\\'\"`,;:<>|()\[\]]+)"
)


def without_folders(text: str, folders: Iterable[Path] = ()) -> str:
    """The text with every absolute path cut down to its last name: "cannot read …/image.nii.gz".

    What lies in one of `folders` is written relative to it, whatever characters the names of these contain.
    """
    for folder in sorted(
        {str(folder.absolute()) for folder in folders if len(folder.absolute().parts) > 1}, key=len, reverse=True
    ):
        text = text.replace(f"{folder}/", "").replace(folder, Path(folder).name or "/")
    return _ABSOLUTE.sub(r"…/\1", text)
