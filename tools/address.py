"""Write the repository's address from ``_config.yml`` into the files that cannot read it."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def mentions() -> dict[Path, str]:
    """What each file should say, given the address."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    address, branch = config["repository"]["url"], config["repository"]["branch"]
    name = "/".join(address.split("/")[-2:])
    hub = config["launch_buttons"]["binderhub_url"]
    binder = f"{hub}/v2/gh/{name}/{branch}?urlpath=lab/tree/book"
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
