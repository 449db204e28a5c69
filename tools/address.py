"""Write the repository's address from ``_config.yml`` into the files that cannot read it."""

import re
import sys
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
        readme: re.sub(r"(badge_logo\.svg\)\]\().*?\)", rf"\g<1>{binder})", readme.read_text()),
        citation: re.sub(r"(repository-code: ).*", rf"\g<1>{address}", citation.read_text()),
    }


def main() -> None:
    check = "--check" in sys.argv
    for path, text in mentions().items():
        if path.read_text() == text:
            continue
        if check:
            sys.exit(f"{path.name} names another address than _config.yml. Run `make address`.")
        path.write_text(text)


if __name__ == "__main__":
    main()
