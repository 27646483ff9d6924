"""Compiles each feature and each program by itself, as users do.

Cargo unites the features of all packages that it builds at once. A feature that
a manifest lacks goes unnoticed while another member of the workspace enables it.
This runs clippy, with warnings as errors, over

* `libraries`: each published one, with no feature, with each one and with all;
* `programs`: each package of examples, with its examples and all of its features.
"""

import json
import pathlib
import subprocess
import sys


def main():
    metadata = json.loads(
        subprocess.check_output(["cargo", "metadata", "--no-deps", "--format-version", "1"])
    )
    examples = pathlib.Path(metadata["workspace_root"], "examples")
    (wanted,) = sys.argv[1:]
    checked = 0
    for package in metadata["packages"]:
        name = package["name"]
        is_library = package["publish"] is None
        is_program = examples in pathlib.Path(package["manifest_path"]).parents
        if is_library and wanted == "libraries":
            checked += 1
            clippy(name, "--lib", "--no-default-features")
            for feature in package["features"]:
                clippy(name, "--lib", "--no-default-features", "--features", feature)
            clippy(name, "--lib", "--all-features")
        elif is_program and wanted == "programs":
            checked += 1
            kinds = {kind for target in package["targets"] for kind in target["kind"]}
            clippy(name, "--all-features", *(["--examples"] if "example" in kinds else []))
    if not checked:
        sys.exit("There is nothing that this would check.")


def clippy(package, *options):
    command = ["cargo", "clippy", "--quiet", "-p", package, *options]
    print(*command, flush=True)
    if subprocess.run([*command, "--", "-D", "warnings"]).returncode:
        sys.exit(1)


main()
