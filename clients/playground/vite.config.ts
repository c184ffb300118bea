import { defineConfig } from "vite";

// Names without hashes: the files are kept in the repository, and the server has browsers ask whether they changed.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../../server/e3rl_server/static/playground",
    emptyOutDir: true,
    modulePreload: false,
    assetsInlineLimit: 0,
    rolldownOptions: {
      output: { entryFileNames: "playground.js", assetFileNames: "playground[extname]" },
    },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8000" } },
});
