import { defineConfig } from "vitest/config"

const project = (name: string, root: string) => ({
  test: {
    name,
    root,
    include: ["test/**/*.test.ts"],
    testTimeout: process.env["UNDERSTUDY_DEEP"] === "1" ? 600_000 : 20_000,
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
      project("cli", "packages/cli"),
      project("examples", "examples"),
    ],
  },
})
