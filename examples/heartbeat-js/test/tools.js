// What these tests need from npm: in the folder that HEARTBEAT_NPM names. Without it
// they are skipped, or fail if HEARTBEAT_REQUIRE is set, as `.ci/run` does.

import { createRequire } from "node:module";
import { resolve } from "node:path";

const { HEARTBEAT_NPM: folder, HEARTBEAT_REQUIRE: required } = process.env;

export const skip = !folder && !required && "HEARTBEAT_NPM names no folder with packages";

/** A program of a package, to be run by node. */
export const program = (path) => resolve(folder ?? "", path);

/** A package. */
export const load = (name) => createRequire(resolve(folder ?? "", "_"))(program(name));
