"""The matching engine service. It outlives the migration and does not know that there is one."""
