"""Write the repository's address from ``_config.yml`` into the files that cannot read it."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


def settings() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "_config.yml").read_text())


def launch_links(path: str) -> dict[str, str]:
    """Where Binder and Colab open a file or folder of the public repository."""
    config = settings()
    address, branch = config["repository"]["url"], config["repository"]["branch"]
    name = "/".join(address.split("/")[-2:])
    hub, colab = (config["launch_buttons"][key] for key in ("binderhub_url", "colab_url"))
    return {
        "Binder": f"{hub}/v2/gh/{name}/{branch}?urlpath=lab/tree/{path}",
        "Colab": f"{colab}/github/{name}/blob/{branch}/{path}",
    }


def mentions() -> dict[Path, str]:
    """What each file should say, given the address."""
    address, binder = settings()["repository"]["url"], launch_links("book")["Binder"]
    readme, citation = ROOT / "README.md", ROOT / "CITATION.cff"
    return {
        readme: put(binder, r"(?<=badge_logo\.svg\)\]\().*?(?=\))", readme.read_text()),
        citation: put(address, r"(?<=repository-code: ).*", citation.read_text()),
    }


def put(address: str, place: str, text: str) -> str:
    """Write the address at the one place that matches."""
    text, found = re.subn(place, address, text)
    if found != 1:
        raise ValueError(f"expected one place like {place}, found {found}")
    return text


def main() -> None:
    for path, text in mentions().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
