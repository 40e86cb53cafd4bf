"""What every room stands on: errors, checks of arguments, and what asyncio and sqlite3 lack."""
