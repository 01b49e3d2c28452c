"""How good are answers, and how sure is that?"""
