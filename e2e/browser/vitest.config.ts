import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/*.test.ts"],
    // One Chromium and one server at a time: the machine may have two cores.
    fileParallelism: false,
    // Patience, not a limit of speed: only a test that fails waits that long.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    teardownTimeout: 60_000,
  },
});
