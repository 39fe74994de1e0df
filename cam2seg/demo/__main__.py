"""Write the generated steel strips: python -m cam2seg.demo data/demo"""

from .strips import main

if __name__ == "__main__":
    main()
