"""What clients talk to: HTTP in front of the monolith (`plane`, `native`), captures of what orders
did there (`capture`), and who answers them (`desk`). Here: processes, and what joins the parts.
"""
