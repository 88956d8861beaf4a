"""Playwright for `drivers.py`. argv: browser, url, tabs. Prints what it took, then holds its tabs until killed."""

import asyncio
import json
import sys
import time

from playwright.async_api import async_playwright


async def main(browser: str, url: str, tabs: int) -> None:
    """Start, open, hold."""
    began = time.perf_counter()
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        await (await (await launched.new_context()).new_page()).goto(url)
        start_s = time.perf_counter() - began
        times = []
        for _ in range(tabs - 1):
            began = time.perf_counter()
            page = await (await launched.new_context()).new_page()
            times.append(1000 * (time.perf_counter() - began))
            await page.goto(url)
        print(json.dumps({"start_s": start_s, "tab_ms": sorted(times)[len(times) // 2]}), flush=True)
        await asyncio.sleep(600)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
