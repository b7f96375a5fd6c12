"""x"""
import time, cProfile, pstats
from legacy_side import *
from shadow.legacy.changes import create_slot
def test_speed(legacy_database):
    install(legacy_database)
    url = ours(legacy_database)
    run(create_slot(url, SLOT))
    N=8000
    with application(legacy_database) as app:
        t0=time.time()
        with app.cursor() as c:
          with app.pipeline():
            for n in range(N):
                c.execute("BEGIN"); 
                for _ in range(3): c.execute(INSERT_ORDER, ORDER)
                c.execute("COMMIT")
        print("written", 3*N/(time.time()-t0), "rows/s")
    async def main():
        async with streaming(url) as s:
            pr=cProfile.Profile()
            t0=time.time()
            pr.enable() if PROFILE else None
            got=0
            async for t in s.transactions():
                got+=len(t.changes)
                s.confirm(t.end_lsn)
                if got==3*N: break
            pr.disable()
            print(f"read {got/(time.time()-t0):.0f} changes/s")
            if PROFILE: pstats.Stats(pr).sort_stats("tottime").print_stats(12)
    import os
    PROFILE=bool(os.environ.get("PROFILE"))
    run(main())
