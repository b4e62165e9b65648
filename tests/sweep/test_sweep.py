def test_x(sweep):
    print(open(sweep.out/'results.csv').read())
    assert sweep.status==0
