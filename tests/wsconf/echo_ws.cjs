// The echo peer of ends.py around the npm package ws, both ends.
"use strict";
const readline = require("node:readline");
const { WebSocket, WebSocketServer } = require("ws");

const options = { perMessageDeflate: false, maxPayload: 64 * 1024 * 1024, maxFragments: 0, maxBufferedChunks: 0 };

function echo(socket) {
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on("error", () => {}); // what it thinks of a frame; it closes by itself
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, ...options }, () => {
  console.log(`port ${server.address().port}`);
});
server.on("connection", echo);
const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const socket = new WebSocket(line.split(" ")[1], options);
  echo(socket);
  socket.on("close", (code) => console.log(`closed ${code}`));
});
lines.on("close", () => process.exit(0));
