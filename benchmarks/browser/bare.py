"""Bare Playwright: so many captures of one page, a fresh context each. argv: browser, url, captures, concurrency."""

import asyncio
import json
import sys
import time

from playwright.async_api import async_playwright


async def main(browser: str, url: str, captures: int, concurrency: int) -> None:
    """Print captures a second."""
    began = time.perf_counter()
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        started_s = time.perf_counter() - began
        gate, size = asyncio.Semaphore(concurrency), 0

        async def capture() -> None:
            nonlocal size
            async with gate:
                context = await launched.new_context(viewport={"width": 1280, "height": 720})
                page = await context.new_page()
                await page.goto(url)
                size = len(await page.screenshot())
                await context.close()

        await asyncio.gather(*(capture() for _ in range(4)))
        began = time.perf_counter()
        await asyncio.gather(*(capture() for _ in range(captures)))
        took_s = time.perf_counter() - began
        print(json.dumps({"per_s": captures / took_s, "bytes": size, "start_s": started_s}))
        await launched.close()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
