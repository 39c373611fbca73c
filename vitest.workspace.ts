import { defineConfig } from "vitest/config"

const deep = process.env["UNDERSTUDY_DEEP"] === "1"

const project = (name: string, root: string, testTimeout = 20_000) => ({
  test: {
    name,
    root,
    include: ["test/**/*.test.ts"],
    testTimeout: deep ? 600_000 : testTimeout,
  },
})

export default defineConfig({
  test: {
    // Most of the time goes into waiting for sockets and processes, so two workers pay on two cores.
    maxWorkers: 2,
    projects: [
      project("core", "packages/core"),
      project("providers", "packages/providers"),
      project("testkit", "packages/testkit"),
      // Each of its tests starts several processes.
      project("cli", "packages/cli", 60_000),
      project("examples", "examples"),
    ],
  },
})
