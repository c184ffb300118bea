"""Several answers at once, in coroutines: python many.py [URL]."""

import asyncio
import sys

from e3rl_client import AsyncE3RL, healing_of

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"


async def main() -> None:
    async with AsyncE3RL(base_url=f"{url}/v1", api_key="none") as client:

        async def ask(seed: int) -> str:
            response = await client.responses.create(
                model="smollm2-135m-instruct",
                input="Name a colour and say why you like it.",
                max_output_tokens=40,
                temperature=1,
                extra_body={"seed": seed},
                healing="on",
            )
            return f"seed {seed}, {healing_of(response).erasures} erasures: {response.output_text!r}"

        for line in await asyncio.gather(*map(ask, range(4))):
            print(line)


asyncio.run(main())
