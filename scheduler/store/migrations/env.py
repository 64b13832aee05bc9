"""Alembic's environment: runs on the connection that `scheduler.store.schema` hands over, or prints SQL without one."""

from alembic import context

options = context.config.attributes
settings = {
    "version_table": "timeout_scheduler_version",
    "version_table_schema": options["schema"],
    "target_metadata": options["metadata"],
    "include_schemas": False,
}

if context.is_offline_mode():
    context.configure(dialect_name=options["dialect_name"], **settings)
    with context.begin_transaction():
        for statement in options["preparation"]:
            context.execute(statement)
        context.run_migrations()
else:
    context.configure(connection=options["connection"], **settings)
    context.run_migrations()
