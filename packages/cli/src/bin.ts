#!/usr/bin/env node
/** The `understudy` command. What it is made of is compiled once, and kept by Node for the next time. */
import { enableCompileCache } from "node:module"

enableCompileCache()
await import("./main.ts")
