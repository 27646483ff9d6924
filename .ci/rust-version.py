"""Fails if a published crate promises an older Rust than it needs.

Compares `rust-version` in the workspace's Cargo.toml with the `rust-version`
of every crate in Cargo.lock that the published crates are built from: normal
and build dependencies, on any platform, with any feature, dependencies of
dependencies included. What only tests need doesn't count.
"""

import json
import subprocess
import sys


def main():
    metadata = json.loads(
        subprocess.check_output(
            ["cargo", "metadata", "--locked", "--all-features", "--format-version", "1"]
        )
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    published = [
        member
        for member in metadata["workspace_members"]
        if packages[member]["publish"] != []
    ]
    wrong = 0
    for member in published:
        name, promised = packages[member]["name"], packages[member]["rust_version"]
        needed = [packages[id] for id in built_from(member, metadata["resolve"]["nodes"])]
        needed.sort(key=lambda package: version(package["rust_version"]))
        print(f"{name} promises {promised}; its {len(needed)} dependencies ask for at most:")
        for package in needed[-3:]:
            print(f"  {package['rust_version']:8} {package['name']} {package['version']}")
        wrong += sum(version(p["rust_version"]) > version(promised) for p in needed)
    if not published or wrong:
        sys.exit("rust-version is too low")


def built_from(root, nodes):
    """The ids of all that the package `root` is built from, without itself."""
    edges = {node["id"]: node["deps"] for node in nodes}
    found, unseen = {root}, [root]
    while unseen:
        for dep in edges[unseen.pop()]:
            used = any(kind["kind"] != "dev" for kind in dep["dep_kinds"])
            if used and dep["pkg"] not in found:
                found.add(dep["pkg"])
                unseen.append(dep["pkg"])
    return found - {root}


def version(text):
    """A number to compare by; a crate that says nothing asks for nothing."""
    return tuple(int(part) for part in text.split(".")) if text else ()


main()
