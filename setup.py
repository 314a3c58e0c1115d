"""Map the folders of this repository to packages below `sparring`; all other metadata is in
pyproject.toml.

`research/` is the package `sparring` itself; `agents/`, `envs/`, `gans/` and `conf/` are its
subpackages.
"""

from setuptools import find_namespace_packages, setup

PACKAGE_OF_FOLDER = {
    "research": "sparring",
    "agents": "sparring.agents",
    "envs": "sparring.envs",
    "gans": "sparring.gans",
    "conf": "sparring.conf",
}


def packages() -> list[str]:
    """Return the import names of all packages, those of folders that hold only YAML included."""
    names = []
    for folder, package in PACKAGE_OF_FOLDER.items():
        names.append(package)
        inner = find_namespace_packages(folder, exclude=["*__pycache__*"])
        names.extend(f"{package}.{name}" for name in inner)
    return names


setup(
    packages=packages(),
    package_dir={package: folder for folder, package in PACKAGE_OF_FOLDER.items()},
    package_data={"": ["*.yaml", "py.typed"]},
)
