"""The echo peer of ends.py around the PyPI package websockets, both ends."""
import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

OPTIONS = {"compression": None, "max_size": 64 << 20, "ping_interval": None}


async def echo(connection):
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        pass


async def dial(url):
    async with connect(url, proxy=None, **OPTIONS) as connection:
        await echo(connection)
    print("closed", connection.close_code, flush=True)


async def main():
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with serve(echo, "127.0.0.1", 0, **OPTIONS) as server:
        print("port", server.sockets[0].getsockname()[1], flush=True)
        dialled = set()
        while line := (await stdin.readline()).decode():
            task = asyncio.create_task(dial(line.split()[1]))
            dialled.add(task)
            task.add_done_callback(dialled.discard)


asyncio.run(main())
