"""The foundation of all packages: errors, argument checks, asyncio helpers, SQLite files, a worker thread."""
