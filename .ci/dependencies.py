"""Fails if a dependency comes in that deny.toml doesn't allow.

Covers every crate that a member of the workspace is built from, tests included,
on any platform, with all features. deny.toml is in cargo-deny's format, and its
settings mean the same here. A setting that this script doesn't know is an error.
It needs no network.
"""

import json
import re
import subprocess
import sys
import tomllib

KNOWN = {
    "licenses": {"allow", "exceptions"},
    "bans": {"multiple-versions", "wildcards", "allow-wildcard-paths", "deny"},
    "sources": {"unknown-registry", "unknown-git"},
}
LEVELS = ("allow", "warn", "deny")


def main():
    with open("deny.toml", "rb") as file:
        policy = tomllib.load(file)
    for table, settings in policy.items():
        for unknown in settings.keys() - KNOWN.get(table, set()):
            sys.exit(f"deny.toml: nobody checks {table}.{unknown}")
    metadata = json.loads(
        subprocess.check_output(
            ["cargo", "metadata", "--locked", "--offline", "--all-features"]
            + ["--format-version", "1"]
        )
    )
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    packages = [package for package in metadata["packages"] if package["id"] in used]
    if len(packages) <= len(metadata["workspace_members"]):
        sys.exit("No dependencies? They aren't seen.")

    found = [
        *licenses(policy["licenses"], packages),
        *bans(policy["bans"], packages),
        *sources(policy["sources"], packages, metadata["workspace_members"]),
    ]
    for level, complaint in found:
        if level != "allow":
            print(f"{level}: {complaint}")
    denied = sum(level == "deny" for level, _ in found)
    print(f"{len(packages)} crates, {denied} complaints")
    if denied:
        sys.exit(1)


# ---- licences -----------------------------------------------------------------


def licenses(settings, packages):
    allowed = set(settings["allow"])
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in settings["exceptions"]}
    needed, excepted = set(), set()
    for package in packages:
        name, license = package["name"], package["license"]
        if not license:
            yield "deny", f"{name} {package['version']} names no licence"
            continue
        more = exceptions.get(name, set())
        if not satisfied(license, allowed | more):
            yield "deny", f"{name} {package['version']} has the licence {license}"
        needed |= allowed & names(license)
        if more & names(license):
            excepted.add(name)
    for license in sorted(allowed - needed):
        yield "warn", f"no crate has the licence {license}"
    for name in sorted(exceptions.keys() - excepted):
        yield "warn", f"{name} needs no exception"


def satisfied(license, allowed):
    """Whether an SPDX expression can be fulfilled by `allowed`. OR binds least."""
    tokens = re.findall(r"[()]|[^\s()]+", license.replace("/", " OR "))

    def alternatives():
        result = together()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            # Both are read, whatever the first says.
            result = together() or result
        return result

    def together():
        result = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            result = single() and result
        return result

    def single():
        token = tokens.pop(0)
        if token == "(":
            result = alternatives()
            if tokens.pop(0) != ")":
                raise ValueError(license)
            return result
        # An exception makes it another licence.
        while tokens and tokens[0] == "WITH":
            token = " ".join([token, tokens.pop(0), tokens.pop(0)])
        return token in allowed

    result = alternatives()
    if tokens:
        raise ValueError(license)
    return result


def names(license):
    return set(re.findall(r"[^\s()/]+", license))


# ---- bans ---------------------------------------------------------------------


def bans(settings, packages):
    for package in packages:
        if package["name"] in settings["deny"]:
            yield "deny", f"{package['name']} is banned"
    yield from duplicates(level(settings["multiple-versions"]), packages)
    yield from wildcards(settings, packages)


def duplicates(severity, packages):
    versions = {}
    for package in packages:
        versions.setdefault(package["name"], []).append(package["version"])
    for name, several in versions.items():
        if len(several) > 1:
            yield severity, f"{name} in several versions: {', '.join(several)}"


def wildcards(settings, packages):
    severity = level(settings["wildcards"])
    for package in packages:
        private = package["publish"] == []
        for dependency in package["dependencies"]:
            beside = dependency.get("path") and settings["allow-wildcard-paths"]
            harmless = beside and (private or dependency["kind"] == "dev")
            if dependency["req"] == "*" and not harmless:
                yield severity, f"{package['name']} takes any version of {dependency['name']}"


# ---- sources ------------------------------------------------------------------


def sources(settings, packages, members):
    registries = set()
    for package in packages:
        name, source = package["name"], package["source"]
        if source is None:
            if package["id"] not in members:
                yield "deny", f"{name} is from a folder that isn't ours"
        elif source.startswith("registry+"):
            registries.add(source)
        else:
            yield level(settings["unknown-git"]), f"{name} is from {source}"
        for dependency in package["dependencies"]:
            # Where none is named it is cargo's own.
            if dependency["registry"]:
                other = f"{name} takes {dependency['name']} from {dependency['registry']}"
                yield level(settings["unknown-registry"]), other
    if len(registries) > 1:
        yield level(settings["unknown-registry"]), f"several registries: {registries}"


def level(word):
    if word not in LEVELS:
        sys.exit(f"deny.toml: {word!r} is none of {LEVELS}")
    return word


main()
