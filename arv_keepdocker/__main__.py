"""`python -m arv_keepdocker`, and what the installed scripts call."""

from arv_keepdocker import main

if __name__ == "__main__":
    main()
