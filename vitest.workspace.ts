import { defineConfig } from "vitest/config"

const project = (name: string, root: string) => ({
  test: { name, root, include: ["test/**/*.test.ts"], exclude: ["test/**/*.deep.test.ts"], testTimeout: 20_000 },
})

export default defineConfig({
  test: {
    projects: [
      project("core", "packages/core"),
      project("providers", "packages/providers"),
      project("testkit", "packages/testkit"),
      project("cli", "packages/cli"),
      project("examples", "examples"),
    ],
  },
})
