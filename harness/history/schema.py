# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of the history, as steps from each version to the next.

A step that was released is never changed: a new one is added behind it. `PRAGMA user_version` is
the number of steps taken.
"""

STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE nights (
            number INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            started_s REAL NOT NULL,
            ended_s REAL NOT NULL DEFAULT 0
        ) STRICT""",
        """CREATE TABLE cells (
            id INTEGER PRIMARY KEY,
            night INTEGER NOT NULL REFERENCES nights(number) ON DELETE CASCADE,
            base TEXT NOT NULL,
            series TEXT NOT NULL,
            patch_number INTEGER NOT NULL,
            patch TEXT NOT NULL,
            config TEXT NOT NULL,
            vcpus INTEGER NOT NULL,
            mode TEXT NOT NULL,
            host TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'planned'
                CHECK (state IN ('planned', 'running', 'done')),
            outcome TEXT CHECK (outcome IN ('FAIL', 'ERROR', 'EMPTY', 'PASS', 'SKIP')),
            reason TEXT NOT NULL DEFAULT '',
            started_s REAL NOT NULL DEFAULT 0,
            ended_s REAL NOT NULL DEFAULT 0,
            run TEXT NOT NULL DEFAULT '',
            revision TEXT NOT NULL DEFAULT '',
            patchset TEXT NOT NULL DEFAULT '',
            CHECK ((state = 'done') = (outcome IS NOT NULL)),
            UNIQUE (night, base, series, patch_number, patch, config, vcpus, mode, host)
        ) STRICT""",
        """CREATE TABLE findings (
            id INTEGER PRIMARY KEY,
            identity TEXT NOT NULL UNIQUE,
            rule TEXT NOT NULL,
            kind TEXT NOT NULL,
            title TEXT NOT NULL,
            place TEXT NOT NULL,
            severity TEXT NOT NULL CHECK (severity IN ('fail', 'report')),
            first_night INTEGER NOT NULL REFERENCES nights(number),
            last_night INTEGER NOT NULL REFERENCES nights(number)
        ) STRICT""",
        """CREATE TABLE sightings (
            cell INTEGER NOT NULL REFERENCES cells(id) ON DELETE CASCADE,
            finding INTEGER NOT NULL REFERENCES findings(id),
            summary TEXT NOT NULL,
            count INTEGER NOT NULL,
            seen INTEGER NOT NULL,
            looked INTEGER NOT NULL CHECK (looked >= seen AND seen > 0),
            run TEXT NOT NULL,
            known TEXT NOT NULL,
            PRIMARY KEY (cell, finding)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX sightings_by_finding ON sightings (finding)",
    ),
    # Trends over a hundred nights look up cells by night.
    ("CREATE INDEX cells_by_night ON cells (night, state)",),
    (
        "ALTER TABLE cells ADD COLUMN build_s REAL NOT NULL DEFAULT 0",
        "ALTER TABLE cells ADD COLUMN again TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE sightings ADD COLUMN known_until TEXT NOT NULL DEFAULT ''",
    ),
    # One a line.
    ("ALTER TABLE cells ADD COLUMN warnings TEXT NOT NULL DEFAULT ''",),
)
