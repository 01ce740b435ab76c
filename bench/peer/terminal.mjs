// The peer of a watched terminal: node-pty behind ws, in one process. Each connection gets a shell; while 1 MiB waits for
// the socket the terminal is not read (without that its memory would know no bound).
import { spawn } from "node-pty";
import { WebSocketServer } from "ws";

const HIGH = 1 << 20, LOW = 256 << 10;
const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: false });
server.on("connection", (socket) => {
  const terminal = spawn("/bin/bash", ["--norc"], { name: "xterm-256color", cols: 120, rows: 40, cwd: process.argv[2], encoding: null });
  let paused = false;
  terminal.onData((bytes) => {
    socket.send(bytes, { binary: true }, () => {
      if (paused && socket.bufferedAmount < LOW) { paused = false; terminal.resume(); }
    });
    if (!paused && socket.bufferedAmount > HIGH) { paused = true; terminal.pause(); }
  });
  socket.on("message", (keys) => terminal.write(keys));
  socket.on("close", () => terminal.kill());
});
server.on("listening", () => console.log(server.address().port));
