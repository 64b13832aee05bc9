"""An incident drill: a database that is away for minutes while a cohort falls due, as whoever is on call sees it."""
